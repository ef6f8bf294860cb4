"""Runs a calibrate-scorer job: scores the labelled items, fits, cross-validates, saves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from methods.calibrate_scorer import blocks, core, figures
from methods.calibrate_scorer.spec import (
    JOB,
    CalibratedSlice,
    EnsembleWeights,
    Method,
    Result,
    Spec,
    TwoStageOptions,
)
from methods.context import RunContext
from methods.errors import JobError
from methods.results import Provenance
from methods.score_hallucination.answers.judges import provenance_fields as judged
from methods.score_hallucination.calibration import fits
from methods.score_hallucination.calibration.calibrator import (
    Binding,
    Calibrator,
    Errors,
    Quality,
    TwoStage,
    scoring_version,
)
from methods.score_hallucination.evaluation.columns import Labelled, read
from methods.score_hallucination.evaluation.drift import Distribution
from methods.score_hallucination.schema.judges import JUDGE_SCORERS
from methods.score_hallucination.scorers import ensemble
from methods.typing import BoolArray, FloatArray, IntArray

_STEPS = 6


@dataclass(frozen=True)
class _Data:
    """The items that the map is fitted on, all with a confidence.

    confidence, right: (N,). rows: (N,) positions among the labelled items. fold: (N,). single: (N,)
    one item of each prompt.
    """

    confidence: FloatArray
    right: FloatArray
    rows: IntArray
    fold: IntArray
    single: BoolArray
    weights: dict[str, float]
    ensemble: EnsembleWeights | None
    n_undefined: int


def run(spec: Spec, ctx: RunContext) -> Result:
    """Fit a calibrator; see `Spec` and `Result`.

    Raises:
        JobError: `input_invalid` for bad rows, one class only, too few labels, a scorer without a
            confidence, or scores of stage two that do not fit the items.
    """
    table = read(spec, _scorers(spec), ctx)
    data = _data(spec, table, ctx)
    ctx.progress("fitting", 1, _STEPS, "steps")
    fitted = core.fit_map(spec.method, data.confidence, data.right, spec.margin)
    held_out, methods = _cross_validated(spec, data, ctx)
    ctx.progress("fitting", 2, _STEPS, "steps")
    envelope = core.envelope(
        spec.method, data.confidence, data.right, ctx.rng, spec.margin, ctx.check
    )
    ctx.progress("fitting", 3, _STEPS, "steps")
    quality = _quality(spec, data, core.apply(fitted, data.confidence), methods, ctx)
    ctx.progress("fitting", 4, _STEPS, "steps")
    # Items with the same prompt are not independent; the guarantees take one of each.
    confidence, right = data.confidence[data.single], data.right[data.single]
    calibrator = Calibrator(
        binding=_binding(spec, table, data),
        map=fitted,
        envelope=envelope,
        abstention=[core.abstain(confidence, right, risk) for risk in spec.risks],
        selective=[core.select(confidence, right, risk, spec.delta) for risk in spec.risks],
        two_stage=_two_stage(spec.two_stage, table, data) if spec.two_stage else None,
        n=len(data.right),
        n_hallucinated=int((data.right == 0).sum()),
        labels=table.counts,
        grader=spec.grader.words,
        distribution=Distribution.of(data.confidence.tolist()),
        quality=quality,
    )
    ctx.progress("fitting", 5, _STEPS, "steps")
    saved = calibrator.model_dump_json(indent=1).encode()
    artifact = ctx.save_artifact("calibrator.json", saved, "application/json")
    drawn = figures.draw(calibrator, data.confidence, data.right, held_out)
    ctx.progress("fitting", _STEPS, _STEPS, "steps")
    result = Result(
        id=calibrator.id,
        calibrator=calibrator,
        artifact=artifact,
        methods=methods,
        ensemble=data.ensemble,
        n_undefined=data.n_undefined,
        n_same_prompt=int((~data.single).sum()),
        slices=_slices(spec, table, data, held_out, ctx),
        warnings=_warnings(calibrator, data, table),
        judging=table.judging,
        provenance=_provenance(spec),
    )
    return blocks.present(result, drawn)


def _scorers(spec: Spec) -> list[Any]:
    second = spec.two_stage.scorer if spec.two_stage is not None else None
    return [*spec.scorers, *([second] if second and second not in spec.scorers else [])]


def _data(spec: Spec, table: Labelled, ctx: RunContext) -> _Data:
    matrix = np.stack([_confidence(table, name) for name in spec.scorers])
    defined = ~np.isnan(matrix).all(axis=0)
    rows = np.flatnonzero(defined)
    matrix, right = matrix[:, defined], table.right[defined]
    weights, fitted = np.ones(1), None
    if len(spec.scorers) > 1:
        # Weights that had seen an item would break its exchangeability with new ones.
        group = _groups(table.group[rows])
        half = np.asarray(ensemble.stratified(right, 2, ctx.rng, group) == 0)
        weights, fitted = _weights(spec, matrix, right, half, ctx)
        matrix, right, rows = matrix[:, ~half], right[~half], rows[~half]
    _refuse(core.refusal(right, spec.method, spec.folds))
    group = _groups(table.group[rows])
    return _Data(
        single=_one_each(group, len(rows), ctx.rng),
        confidence=ensemble.combine(matrix, weights),
        right=right,
        rows=rows,
        fold=ensemble.stratified(right, spec.folds, ctx.rng, group),
        weights=dict(zip(spec.scorers, weights.tolist(), strict=True)),
        ensemble=fitted,
        n_undefined=int((~defined).sum()),
    )


def _groups(group: IntArray) -> IntArray | None:
    """(N,) the prompts of items, numbered from 0; None where each has its own."""
    known, numbered = np.unique(group, return_inverse=True)
    return None if len(known) == len(group) else numbered


def _one_each(group: IntArray | None, n: int, rng: np.random.Generator) -> BoolArray:
    """(N,) one item of each group, by chance; all where each is its own."""
    if group is None:
        return np.ones(n, dtype=bool)
    order = rng.permutation(len(group))
    chosen = np.zeros(len(group), dtype=bool)
    chosen[order[np.unique(group[order], return_index=True)[1]]] = True
    return chosen


def _slices(
    spec: Spec, table: Labelled, data: _Data, held_out: FloatArray, ctx: RunContext
) -> list[CalibratedSlice]:
    found = []
    for part in table.slices:
        rows = part.rows[data.rows]
        if rows.any():
            probability, right = held_out[rows], data.right[rows]
            found.append(
                CalibratedSlice(
                    field=part.field,
                    value=part.value,
                    n=int(rows.sum()),
                    mean=float(probability.mean()),
                    right=float(right.mean()),
                    errors=_errors(spec, probability, right, ctx),
                )
            )
    return found


def _confidence(table: Labelled, name: str) -> FloatArray:
    """(N,) confidences of a scorer that has some."""
    confidence = table.confidences[name]
    if np.isfinite(confidence).any():
        return confidence
    if np.isfinite(table.values[name]).any():
        raise JobError("input_invalid", f"{name} only ranks answers: it has no confidence.")
    reason, count = table.reasons[name].most_common(1)[0]
    raise JobError(
        "input_invalid",
        f"{name} is undefined for every labelled item; {count} times: {reason}.",
        details={"reasons": dict(table.reasons[name].most_common(10))},
    )


def _refuse(reason: str | None) -> None:
    if reason is not None:
        raise JobError("input_invalid", f"Cannot calibrate: {reason}.")


def _weights(
    spec: Spec, matrix: FloatArray, right: FloatArray, half: BoolArray, ctx: RunContext
) -> tuple[FloatArray, EnsembleWeights]:
    """(S,) weights from the items of `half`, and how they do on the others."""
    for part in (half, ~half):
        reason = core.refusal(right[part], "platt", spec.folds)
        _refuse(reason and f"an ensemble halves the labels, and in a half {reason}")
    fit = ensemble.fit_weights(matrix[:, half], right[half], ctx.rng, spec.folds)
    rest, truth = matrix[:, ~half], right[~half]
    candidates = np.vstack([np.full(len(rest), 1 / len(rest)), fit.weights])
    equal, fitted = ensemble.mixture_auroc(rest, truth, candidates).tolist()
    aurocs = ensemble.mixture_auroc(rest, truth, np.eye(len(rest))).tolist()
    alone = {
        name: auroc if np.isfinite(own).all() else None
        for name, own, auroc in zip(spec.scorers, rest, aurocs, strict=True)
    }
    return fit.weights, EnsembleWeights(
        n=int(half.sum()), auroc=fit.auroc, single=alone, equal=equal, fitted=fitted
    )


def _cross_validated(
    spec: Spec, data: _Data, ctx: RunContext
) -> tuple[FloatArray, dict[Method, Errors]]:
    """(N,) held-out probabilities of the spec's method, and the errors of every method."""
    possible: list[Method] = ["platt"]
    if len(data.right) >= fits.MIN_ISOTONIC:
        possible.append("isotonic")
    held_out = {
        method: core.held_out(method, data.confidence, data.right, data.fold, spec.margin)
        for method in possible
    }
    errors = {m: _errors(spec, found, data.right, ctx) for m, found in held_out.items()}
    return held_out[spec.method], errors


def _errors(spec: Spec, probability: FloatArray, right: FloatArray, ctx: RunContext) -> Errors:
    ctx.check()
    resamples = int(np.clip(20_000_000 // len(right), 200, spec.resamples))
    return core.errors(probability, right, ctx.rng, spec.bins, resamples)


def _quality(
    spec: Spec, data: _Data, fitted: FloatArray, methods: dict[Method, Errors], ctx: RunContext
) -> Quality:
    one = np.ones((1, 1))
    return Quality(
        uncalibrated=_errors(spec, data.confidence, data.right, ctx),
        in_sample=_errors(spec, fitted, data.right, ctx),
        cross_validated=methods[spec.method],
        folds=spec.folds,
        auroc=float(ensemble.mixture_auroc(data.confidence[None], data.right, one)[0]),
    )


def _binding(spec: Spec, table: Labelled, data: _Data) -> Binding:
    sizes = table.sizes[data.rows]
    return Binding(
        weights=data.weights,
        similarity=spec.similarity,
        clustering=spec.clustering,
        tau=spec.tau,
        include_self=spec.include_self,
        judges=spec.judges if set(data.weights) & set(JUDGE_SCORERS) else [],
        n_answers=(int(sizes.min()), int(sizes.max())),
        scoring=scoring_version(),
    )


def _two_stage(options: TwoStageOptions, table: Labelled, data: _Data) -> TwoStage:
    if options.scorer is not None:
        second, name = 1 - _confidence(table, options.scorer)[data.rows], str(options.scorer)
    else:
        given = np.array(options.scores)
        if len(given) != table.counts.n_items:
            raise JobError(
                "input_invalid",
                f"two_stage/scores: {len(given)} for {table.counts.n_items} items.",
            )
        second, name = given[table.rows[data.rows]], "given"
    if np.isnan(second).any():
        row = int(table.rows[data.rows][np.argmax(np.isnan(second))])
        raise JobError("input_invalid", f"Item {row} (from 0) has no score of stage two ({name}).")
    return core.fit_two_stage(
        data.confidence,
        second,
        data.right,
        data.fold,
        budget=options.budget,
        objective=options.objective,
        name=name,
    )


def _warnings(calibrator: Calibrator, data: _Data, table: Labelled) -> list[str]:
    warnings = []
    labels = calibrator.labels
    if labels.n_labelled < labels.n_items:
        warnings.append(f"unlabelled: {labels.n_items - labels.n_labelled} items were left out")
    if data.n_undefined:
        warnings.append(f"undefined: {data.n_undefined} labelled items have no confidence")
    if calibrator.map.method == "platt" and calibrator.map.slope <= 0:
        warnings.append(
            "inverted: higher confidence goes with wrong answers here; this scorer does not work "
            "on these items"
        )
    base = float(data.right.mean())
    brier = calibrator.quality.cross_validated.brier.value
    if brier is not None and brier >= base * (1 - base):
        warnings.append("no_better: saying the share of right answers for every item is as good")
    warnings += [
        f"never_answer: a risk of {a.risk:g} needs {-(-(1 - a.risk) // a.risk):.0f} hallucinated "
        f"items, there are {a.n_hallucinated}"
        for a in calibrator.abstention
        if a.threshold is None
    ]
    return warnings + table.warnings


def _provenance(spec: Spec) -> Provenance:
    return Provenance.of(
        JOB,
        spec.seed,
        scoring=scoring_version(),
        **judged(spec.scoring(_scorers(spec))),
        labels=spec.labels,
        grader=spec.grader.words,
    )
