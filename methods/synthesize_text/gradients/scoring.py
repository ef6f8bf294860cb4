"""Runs `synthesize-text-scores`."""

from __future__ import annotations

from methods.context import RunContext
from methods.synthesize_text.child_jobs import ScoresMade, ScoresPart
from methods.synthesize_text.gradients.loading import label_model
from methods.synthesize_text.gradients.stored_factors import MEDIA_TYPE, pack_scores
from methods.synthesize_text.texts.template import Template


def run(spec: ScoresPart, ctx: RunContext) -> ScoresMade:
    """Read the texts, and save what the model says of each."""
    model = label_model(ctx, spec.model, spec.device)
    texts, _ = model.shortened(spec.texts, spec.max_tokens)
    encoded = model.encode(Template.parse(spec.template), texts, spec.words)
    total = len(encoded)
    scores = model.score(
        encoded, spec.labels, lambda done: ctx.progress("scoring", done, total, "texts")
    )
    data = pack_scores(
        scores.factors,
        probabilities=scores.probabilities,
        log_loss=scores.log_loss,
        tokens=scores.tokens,
        states=scores.states,
    )
    ctx.save_artifact("scores.npz", data, MEDIA_TYPE)
    return ScoresMade(
        texts=total,
        shortened={
            row: text
            for row, (text, given) in enumerate(zip(texts, spec.texts, strict=True))
            if text != given
        },
        forward_tokens=sum(len(one.ids) for one in encoded),
    )
