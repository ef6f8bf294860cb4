"""Runs an evaluate-scorers job: scores once, measures every scorer, compares all pairs."""

from __future__ import annotations

from dataclasses import asdict
from typing import get_args

import numpy as np

from methods.context import RunContext
from methods.evaluate_scorers import blocks, figures
from methods.evaluate_scorers.paired import MIN_OF_CLASS, paired_tests
from methods.evaluate_scorers.spec import (
    JOB,
    Comparison,
    ConfidenceErrors,
    EvaluationSummary,
    RankBy,
    Result,
    ScorerReport,
    SliceReport,
    SliceScore,
    Spec,
)
from methods.results import Interval, Provenance
from methods.score_hallucination.answers.judges import provenance_fields as judged
from methods.score_hallucination.calibration import fits
from methods.score_hallucination.evaluation import ranking, selective_prediction
from methods.score_hallucination.evaluation.columns import Labelled, read
from methods.score_hallucination.evaluation.slices import Slice
from methods.score_hallucination.schema.options import ScorerName, provenance_fields
from methods.score_hallucination.scoring.pipeline import SCORERS
from methods.score_hallucination.spec import JOB as SCORING
from methods.typing import FloatArray

_REASONS = 10
_SIGNIFICANT = 0.05


def run(spec: Spec, ctx: RunContext) -> Result:
    """Compare scorers; see `Spec` and `Result`.

    Raises:
        JobError: `input_invalid` for bad rows, or when no item has a label.
    """
    wanted: list[ScorerName] = list(spec.scorers or get_args(ScorerName))
    table = read(spec, wanted, ctx)
    served = [name for name in wanted if np.isfinite(table.values[name]).any()]
    # One state for every scorer: they are measured on the same resamples.
    seed = int(ctx.rng.integers(2**63))
    reports = []
    for done, name in enumerate(served):
        ctx.progress("measuring", done, len(served), "scorers")
        reports.append(_report(name, table, spec, seed))
    ranked = rank(reports, spec.rank_by)
    ctx.progress("comparing", 0, 1, "steps")
    tests = paired_tests(
        {report.scorer: table.uncertainty(report.scorer) for report in ranked},
        table.right,
        np.random.default_rng(seed),
        spec.resamples,
        ctx.check,
    )
    comparisons = [Comparison(**asdict(test)) for test in tests]
    ranked = _like_best(ranked, comparisons)
    ctx.progress("comparing", 1, 1, "steps")
    same = len({np.isfinite(table.values[name]).tobytes() for name in served}) <= 1
    result = Result(
        summary=EvaluationSummary(
            labels=table.counts,
            n_answers=(int(table.sizes.min()), int(table.sizes.max())),
            best=ranked[0].scorer if ranked and ranked[0].rank == 1 else None,
            rank_by=spec.rank_by,
            same_items=same,
        ),
        ranking=ranked,
        comparisons=comparisons,
        slices=[_sliced(part, table, ranked, spec, seed) for part in table.slices],
        left_out={name: _undefined(table, name) for name in wanted if name not in served},
        warnings=_warnings(table, same),
        judging=table.judging,
        provenance=_provenance(spec, wanted),
    )
    return blocks.present(result, figures.draw(ranked, table, spec.rank_by))


def _report(name: ScorerName, table: Labelled, spec: Spec, seed: int) -> ScorerReport:
    known = np.isfinite(table.values[name])
    uncertainty, right = table.uncertainty(name)[known], table.right[known]
    rng = np.random.default_rng(seed)
    estimates = ranking.bootstrap(uncertainty, right, rng, spec.resamples)
    return ScorerReport(
        rank=None,
        scorer=name,
        direction=SCORERS[name].direction,
        n=len(right),
        n_hallucinated=int((right == 0).sum()),
        n_undefined=int((~known).sum()),
        undefined=_undefined(table, name),
        **estimates,
        risk_coverage_area=_risk_coverage_area(uncertainty, right, estimates["prr_area"]),
        confidence=_confidence(table.confidences[name], table.right, spec, seed),
        like_best=None,
    )


def _sliced(
    part: Slice, table: Labelled, ranked: list[ScorerReport], spec: Spec, seed: int
) -> SliceReport:
    scores = []
    for report in ranked:
        known = part.rows & np.isfinite(table.values[report.scorer])
        if known.any():
            estimates = ranking.bootstrap(
                table.uncertainty(report.scorer)[known],
                table.right[known],
                np.random.default_rng(seed),
                spec.resamples,
            )
            kept = {name: estimates[name] for name in ("auroc", "auarc", "prr")}
            scores.append(SliceScore(scorer=report.scorer, n=int(known.sum()), **kept))
    return SliceReport(
        field=part.field,
        value=part.value,
        n=int(part.rows.sum()),
        n_hallucinated=int((table.right[part.rows] == 0).sum()),
        scorers=scores,
    )


def _undefined(table: Labelled, name: str) -> dict[str, int]:
    return dict(table.reasons[name].most_common(_REASONS))


def _risk_coverage_area(uncertainty: FloatArray, right: FloatArray, area: Interval) -> Interval:
    """With labels of both classes the AURC is 1 - prr_area, in every resample too."""
    value = selective_prediction.risk_coverage_area(uncertainty, right)
    if len(np.unique(right)) < 2 or area.low is None or area.high is None:
        return Interval(value=value, low=value, high=value)
    return Interval(value=value, low=1 - area.high, high=1 - area.low)


def _confidence(
    confidence: FloatArray, right: FloatArray, spec: Spec, seed: int
) -> ConfidenceErrors | None:
    known = np.isfinite(confidence)
    if not known.any():
        return None
    n = int(known.sum())
    errors = fits.bootstrap_errors(
        confidence[known],
        right[known],
        np.random.default_rng(seed),
        spec.bins,
        int(np.clip(20_000_000 // n, 200, spec.resamples)),
    )
    return ConfidenceErrors(n=n, ece=errors["ece"], brier=errors["brier"])


def rank(reports: list[ScorerReport], by: RankBy) -> list[ScorerReport]:
    """Best first; equal values share a rank, undefined ones come last without any."""

    def value(report: ScorerReport) -> float:
        found = figures.metric(report, by)
        if found is None or found.value is None:
            return np.inf
        return round(found.value if by in figures.LOWER_IS_BETTER else -found.value, 12)

    keys = {report.scorer: value(report) for report in reports}
    ordered = sorted(reports, key=lambda report: keys[report.scorer])
    ranks = {
        name: 1 + sum(other < key for other in keys.values())
        for name, key in keys.items()
        if np.isfinite(key)
    }
    return [r.model_copy(update={"rank": ranks.get(r.scorer)}) for r in ordered]


def _like_best(ranked: list[ScorerReport], comparisons: list[Comparison]) -> list[ScorerReport]:
    if not ranked:
        return ranked
    best = ranked[0].scorer
    against = {c.second: c.p_adjusted >= _SIGNIFICANT for c in comparisons if c.first == best}
    if against:
        against[best] = True
    return [r.model_copy(update={"like_best": against.get(r.scorer)}) for r in ranked]


def _warnings(table: Labelled, same: bool) -> list[str]:
    found = [one for one in table.warnings if not one.startswith("different_n")]
    counts = table.counts
    if table.bad_rows:
        found.append(f"bad_rows: {table.bad_rows} rows of the file were left out")
    if counts.n_labelled < counts.n_items:
        found.append(f"unlabelled: {counts.n_items - counts.n_labelled} items were left out")
    fewest = min(counts.n_right, counts.n_hallucinated)
    if fewest == 0:
        found.append("one_class: AUROC, PRR and tests need right and hallucinated items")
    elif fewest < MIN_OF_CLASS:
        found.append(
            f"few_labels: {counts.n_right} right and {counts.n_hallucinated} hallucinated items; "
            f"tests need {MIN_OF_CLASS} of each"
        )
    if not same:
        found.append(
            "different_items: scorers are not defined for the same items; the comparisons are on "
            "common items, the ranking is not"
        )
    if table.sizes.min() != table.sizes.max():
        found.append(
            "different_n: items differ in their number of answers, and raw scores of many scorers "
            "depend on it"
        )
    return found


def _provenance(spec: Spec, wanted: list[ScorerName]) -> Provenance:
    return Provenance.of(
        JOB,
        spec.seed,
        scoring=f"{SCORING.name}/{SCORING.version}",
        labels=spec.labels,
        grader=spec.grader.words,
        **provenance_fields(spec.similarity, spec.clustering),
        **judged(spec.scoring(wanted)),
        tau=spec.tau,
        include_self=spec.include_self,
        correction="Romano-Wolf step-down",
        resamples=spec.resamples,
    )
