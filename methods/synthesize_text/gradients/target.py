"""Runs `synthesize-text-target`: the gradient of the real texts of a label, exact or noisy."""

from __future__ import annotations

import random
from collections.abc import Sequence
from hashlib import sha256
from importlib.metadata import version

import numpy as np

from methods.context import RunContext
from methods.errors import JobError
from methods.resume import ResumeStore
from methods.synthesize_text.child_jobs import NoisyTarget, Release, TargetMade, TargetPart
from methods.synthesize_text.gradients import accountant
from methods.synthesize_text.gradients.factors import (
    Factors,
    Target,
    distances,
    inner,
    set_distance,
    squares,
)
from methods.synthesize_text.gradients.label_model import LabelModel, Scores
from methods.synthesize_text.gradients.loading import label_model
from methods.synthesize_text.gradients.stored_factors import MEDIA_TYPE, pack_target
from methods.synthesize_text.seeds import derived_seed
from methods.synthesize_text.texts.inputs import SplitTexts, split_texts
from methods.synthesize_text.texts.overlap import words
from methods.synthesize_text.texts.template import Template
from methods.typing import FloatArray, IntArray

#: Held-out texts that are read beside the others.
_MOST_HELD = 500
#: Directions whose share of the largest is below this are rounding.
_RANK = 1e-6


def run(spec: TargetPart, ctx: RunContext) -> TargetMade:
    """Read the real texts of a label and save the target."""
    split = split_texts(spec.texts, ctx)
    model = label_model(ctx, spec.model, spec.device)
    reading = _Reading(spec, ctx, model)
    used, cut = reading.texts(split.aimed(spec.label)[0])
    scores = reading.scores(used, spec.label)
    made = TargetMade(
        used=len(used),
        available=len(split.used[spec.label]),
        held_out=len(split.held[spec.label]),
        cut=cut,
        norm=0.0,
        parameters=model.parameters,
        outputs=model.outputs,
        width=model.width,
        head_bias=model.bias is not None,
        versions={name: version(name) for name in ("torch", "transformers")},
    )
    if spec.privacy is not None:
        target, made.release = _noisy(spec, spec.privacy, scores.factors, split, reading)
        # How many are long is a statistic of the real texts.
        made.cut = 0
    else:
        target = Target(scores.factors)
        made.mean_tokens = float(scores.tokens.mean())
        made.words = [len(words(text)) for text in used[:_MOST_HELD]]
    _check(target, spec)
    if spec.privacy is None:
        _held_out(made, target, split, reading)
    made.norm = target.norm
    ctx.save_artifact("target.npz", pack_target(target), MEDIA_TYPE)
    return made


def _check(target: Target, spec: TargetPart) -> None:
    if not np.isfinite(target.norm) or target.norm <= 0:
        raise JobError(
            "numerical_failure",
            f"The gradient of the label {spec.texts.labels[spec.label]!r} is "
            f"{'zero' if target.norm == 0 else 'not finite'}, so it has no direction.",
        )


class _Reading:
    def __init__(self, spec: TargetPart, ctx: RunContext, model: LabelModel) -> None:
        self.spec, self.ctx, self.model = spec, ctx, model
        self._template = Template.parse(spec.template)

    def texts(self, texts: Sequence[str]) -> tuple[list[str], int]:
        return self.model.shortened(texts, self.spec.texts.max_tokens)

    def scores(self, texts: Sequence[str], label: int) -> Scores:
        encoded = self.model.encode(self._template, texts, self.spec.words)
        total = len(encoded)

        def tell(done: int) -> None:
            self.ctx.progress("reading real texts", done, total, "texts")

        return self.model.score(encoded, [label] * total, tell)


def _drawn(texts: list[str], most: int, spec: TargetPart, what: str) -> list[str]:
    if len(texts) <= most:
        return texts
    rng = np.random.default_rng(derived_seed(spec.texts.seed, what, spec.label))
    places: IntArray = np.sort(rng.choice(len(texts), most, replace=False))
    return [texts[place] for place in places]


def _held_out(made: TargetMade, target: Target, split: SplitTexts, reading: _Reading) -> None:
    """How near texts are that the target does not have, with this label's word."""
    spec = reading.spec
    bias = spec.bias and made.head_bias
    own, _ = reading.texts(_drawn(split.held[spec.label], _MOST_HELD, spec, "held"))
    others = [text for k, texts in enumerate(split.held) if k != spec.label for text in texts]
    other, _ = reading.texts(_drawn(others, _MOST_HELD, spec, "other"))
    if own:
        scores = reading.scores(own, spec.label)
        made.held_own = _finite(distances(scores.factors, target, bias))
        made.held_set_distance = set_distance(scores.factors, target, bias)
        losses = scores.log_loss[np.isfinite(scores.log_loss)]
        made.held_log_loss = float(losses.mean()) if len(losses) else None
    if other:
        found = distances(reading.scores(other, spec.label).factors, target, bias)
        made.held_other = _finite(found)


def _finite(values: FloatArray) -> list[float]:
    if not np.isfinite(values).all():
        raise JobError("numerical_failure", "A distance of a held-out text is not finite.")
    return [float(value) for value in values]


def _noisy(
    spec: TargetPart, privacy: NoisyTarget, real: Factors, split: SplitTexts, reading: _Reading
) -> tuple[Target, Release]:
    """The mean of clipped gradients in a public subspace, with Gaussian noise.

    The noise comes from the operating system and is drawn once: a later attempt of this job, and
    every equal request, publishes the same target.
    """
    ctx, n = reading.ctx, len(real)
    public = reading.scores(reading.texts(privacy.public)[0], spec.label).factors
    basis = _basis(public, privacy.subspace)
    dimensions = basis.shape[1]
    drawn = inner(public, public) @ basis
    clip = privacy.clip or float(np.median(np.linalg.norm(drawn, axis=1)))
    reach = accountant.sensitivity(clip, n, privacy.adjacency)
    sigma = accountant.sigma_for(privacy.epsilon, privacy.delta, reach)
    store = ResumeStore(ctx, "release")
    kept = store.find_arrays("noisy")
    if kept is None:
        places = accountant.clipped(inner(real, public) @ basis, clip)
        source = random.SystemRandom()
        noise = [source.gauss(0.0, sigma) for _ in range(dimensions)]
        store.keep_arrays("noisy", weights=basis @ (places.mean(axis=0) + noise))
        kept = store.find_arrays("noisy")
        assert kept is not None, "it was just kept"
    data_set = split.digest(spec.label)
    rho = accountant.rho_of(sigma, reach)
    # In the ledger before anybody can see it.
    ctx.record_release(data_set, sha256(kept["weights"].tobytes()).hexdigest(), rho)
    release = Release(
        n=n,
        dimensions=dimensions,
        clip=clip,
        sensitivity=reach,
        sigma=sigma,
        rho=rho,
        expected_cosine=accountant.expected_cosine(
            sigma,
            dimensions,
            # Of public texts: the real ones' own length would be one more release.
            float(np.linalg.norm(accountant.clipped(drawn, clip).mean(axis=0))),
        ),
    )
    return Target(public, kept["weights"]), release


def _basis(public: Factors, most: int) -> FloatArray:
    """(m, k) weights of public gradients that make k orthonormal directions, the main ones."""
    gram = inner(public, public)
    np.fill_diagonal(gram, squares(public)[1])
    values, vectors = np.linalg.eigh(gram)
    order = np.argsort(values)[::-1][:most]
    order = order[values[order] > _RANK * max(float(values.max()), 1e-300)]
    if not len(order):
        raise JobError("numerical_failure", "The gradients of the drawn texts are all zero.")
    return np.asarray(vectors[:, order] / np.sqrt(values[order]))
