"""The files of a synthesize-text result."""

from __future__ import annotations

import json

import numpy as np

from methods.context import RunContext
from methods.results import ArtifactRef
from methods.synthesize_text.gradients.stored_factors import MEDIA_TYPE
from methods.synthesize_text.outcome.made import Made
from methods.synthesize_text.outcome.summary import alternating
from methods.synthesize_text.result import Curve
from methods.synthesize_text.texts.overlap import Overlap
from methods.synthesize_text.texts.template import Template

_JSON_LINES = "application/x-ndjson"


def save(
    made: Made, of_used: list[Overlap], of_held: list[Overlap], curves: list[Curve], ctx: RunContext
) -> dict[str, ArtifactRef]:
    """All texts, the kept ones for training, curves, and the targets on request."""
    template = Template.parse(made.spec.template)
    lines, at = [], 0
    kept: list[list[dict[str, str]]] = []
    for label, (texts, choice) in enumerate(zip(made.sets.candidates, made.choices, strict=True)):
        word, name = made.words[label], made.names[label]
        runs = {row: k + at for k, row in enumerate(choice.kept)}
        at += len(choice.kept)
        for row, text in enumerate(texts.texts):
            loss = float(texts.log_loss[row])
            place = runs.get(row) if of_used else None
            line = {
                "text": text,
                "label": name,
                "group": texts.groups[row],
                "kept": choice.reasons[row] is None,
                "drop_reason": choice.reasons[row],
                "distance": float(choice.distance[row]),
                "log_loss": loss if np.isfinite(loss) else None,
                "perplexity": float(np.exp(min(loss, 700))) if np.isfinite(loss) else None,
                "classifier_p": float(choice.probabilities[row, label]),
                "longest_run_real": None if place is None else of_used[place].longest_run,
                "longest_run_control": None if place is None else of_held[place].longest_run,
            }
            lines.append(json.dumps(line, ensure_ascii=False))
        kept.append(
            [
                {
                    "text": texts.texts[row],
                    "label": name,
                    "prompt": template.prompt(texts.texts[row]),
                    "completion": template.completion(word),
                }
                for row in choice.kept
            ]
        )
    rows = [json.dumps(row, ensure_ascii=False) for row in alternating(kept)]
    files = {
        name: ctx.save_artifact(name, "".join(f"{line}\n" for line in of).encode(), _JSON_LINES)
        for name, of in (("texts.jsonl", lines), ("train.jsonl", rows))
    }
    if curves:
        data = "".join(curve.model_dump_json() + "\n" for curve in curves).encode()
        files["curves.jsonl"] = ctx.save_artifact("curves.jsonl", data, _JSON_LINES)
    if made.spec.keep_target:
        for label, data in enumerate(made.target_files):
            name = f"target-{label}.npz"
            files[name] = ctx.save_artifact(name, data, MEDIA_TYPE)
    return files
