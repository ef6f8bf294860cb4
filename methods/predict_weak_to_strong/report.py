"""What the numbers of `predict-weak-to-strong` say: ranks, recommendation, warnings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from methods.predict_weak_to_strong import blocks, core, figures, ranking
from methods.predict_weak_to_strong.assess import (
    SCORES,
    Assessment,
    StrongSide,
    label_moments,
)
from methods.predict_weak_to_strong.representations import ENCODED_WITH, Model, aligned, cut_texts
from methods.predict_weak_to_strong.result import (
    GridPoint,
    RankStability,
    Recommendation,
    Result,
    StrongModel,
    WeakModel,
)
from methods.predict_weak_to_strong.spec import JOB, Spec
from methods.results import Provenance
from methods.typing import FloatArray, IntArray


@dataclass(frozen=True)
class Candidate:
    """What is kept of a weak model after its passes.

    Attributes:
        rank: principal directions kept.
        top20: its largest eigenvalues on the scale of alpha and beta.
    """

    model: Model
    rank: int
    top20: list[float]
    found: Assessment


@dataclass(frozen=True)
class Ranking:
    """The candidates in order.

    Attributes:
        by: index of the score in `SCORES`.
        observed: rank of each candidate on all rows.
        grid: the score at each beta of the grid, [betas, candidates].
        over_grid: its ranks, [betas, candidates].
        intervals: rank intervals [candidates, 2], None without half-samples.
        saturated: candidates whose operator norm is at its ceiling.
    """

    by: int
    observed: IntArray
    grid: FloatArray
    over_grid: IntArray
    intervals: IntArray | None
    saturated: NDArray[np.bool_]

    @classmethod
    def of(cls, spec: Spec, side: StrongSide, assessments: Sequence[Assessment]) -> Ranking:
        """Rank by what the request asks for."""
        scores = np.array([one.scores for one in assessments])
        ceiling = float(np.max(core.shrinkage_factors(side.spectrum.scaled, spec.beta_s)))
        saturated = ranking.is_saturated(scores[:, 0], ceiling)
        by = _ranked_by(spec, bool(saturated.any()))
        observed = ranking.ranks(scores[:, by])
        intervals = None
        if spec.n_bootstrap:
            replicates = np.array([one.halves[:, by] for one in assessments]).T
            intervals = ranking.rank_intervals(replicates, observed)
        grid = np.array([one.grid[:, by] for one in assessments]).T
        return cls(by, observed, grid, ranking.ranks(grid), intervals, saturated)


def _ranked_by(spec: Spec, saturated: bool) -> int:
    if spec.rank_by != "auto":
        return SCORES.index(spec.rank_by)
    if spec.labels is not None:
        return 2
    return 1 if saturated else 0


def result(spec: Spec, strong: Model, side: StrongSide, candidates: Sequence[Candidate]) -> Result:
    """The answer to a request."""
    order = Ranking.of(spec, side, [one.found for one in candidates])
    strong_result = _strong_result(spec, strong, side)
    power = spec.mean_squared_label if side.code is None else side.code.power
    models = [
        _weak_result(spec.grid, one, order, index, power, strong_result.ceiling_error)
        for index, one in enumerate(candidates)
    ]
    best_first = np.argsort(order.observed, kind="stable").tolist()
    lines = [(models[i].name, candidates[i].top20) for i in best_first]
    found = Result(
        n_used=strong.rows,
        n_labelled=side.code.labelled if side.code else 0,
        strong=strong_result,
        weak=models,
        recommended=_recommendation(models, order),
        rank_stability=_stability(spec.grid, order.grid),
        warnings=_warnings(spec, strong_result, strong.rows, side, models),
        provenance=Provenance.of(JOB, spec.seed, *(ENCODED_WITH if spec.texts else ())),
    )
    drawn = [
        figures.metric_against_baselines(models),
        figures.spectra(strong_result.spectrum_top20, lines),
        figures.angles(models),
    ]
    return blocks.present(found, drawn)


def _strong_result(spec: Spec, model: Model, side: StrongSide) -> StrongModel:
    spectrum, sums = side.spectrum, side.moments.labels
    error = None
    if side.code is not None and sums is not None:
        moments = label_moments(side.code, sums, sums)
        error = core.ceiling_error(spectrum, moments, spec.beta_s, model.rows)
    return StrongModel(
        name=spec.strong.name,
        columns=model.columns,
        encoding=model.encoding,
        rank_s=spectrum.rank,
        dof_s=core.effective_dimension(spectrum.scaled, spec.beta_s),
        participation_ratio=core.participation_ratio(spectrum),
        kept_variance=min(float(spectrum.eigenvalues.sum()) / spectrum.trace, 1.0),
        spectrum_top20=spectrum.scaled[:20].tolist(),
        ceiling_error=error,
    )


def _weak_result(
    betas: Sequence[float],
    one: Candidate,
    order: Ranking,
    index: int,
    power: float,
    ceiling_error: float | None,
) -> WeakModel:
    assessment = one.found
    operator_norm, frobenius, projection = (float(score) for score in assessment.scores)
    labelled = ceiling_error is not None
    interval = None if order.intervals is None else order.intervals[index].tolist()
    return WeakModel(
        name=one.model.source.name,
        status="ok" if one.rank else "degenerate",
        columns=one.model.columns,
        encoding=one.model.encoding,
        rank_w=one.rank,
        metric_op=operator_norm,
        metric_fro=frobenius,
        upper_bound_predgap=operator_norm**2 * power,
        dof_w=assessment.dof,
        cka_linear=assessment.cka,
        principal_angles_top10=assessment.angles.tolist(),
        saturated=bool(order.saturated[index]),
        label_projection=projection if labelled else None,
        predicted_err_w2s=None if ceiling_error is None else projection + ceiling_error,
        rank=int(order.observed[index]),
        rank_ci=None if interval is None else (interval[0], interval[1]),
        over_grid=[
            GridPoint(beta=beta, metric_op=at[0], metric_fro=at[1], rank=rank)
            for beta, at, rank in zip(
                betas, assessment.grid.tolist(), order.over_grid[:, index].tolist(), strict=True
            )
        ],
    )


def _recommendation(models: list[WeakModel], order: Ranking) -> Recommendation:
    observed = order.observed
    best = int(np.argmin(observed))
    dof = np.array([model.dof_w for model in models])
    alike = [model for model in models if model.cka_linear is not None]
    words = (
        "Label-free ranking is only moderately better than picking the weak model with the "
        "largest effective dimension; compare both before trusting it. "
        if order.by != 2
        else "Ranked by true labels, which predict far better than any label-free score. "
    )
    return Recommendation(
        name=models[best].name,
        ranked_by=SCORES[order.by],
        ties=[models[i].name for i in ranking.ties_with_best(observed, order.intervals)],
        largest_dof_w=models[int(np.argmax(dof))].name,
        highest_cka=max(alike, key=lambda m: m.cka_linear or 0.0).name if alike else None,
        agreement_with_dof_w=ranking.kendall(observed.astype(float), -dof),
        words=words
        + "The scores compare supervisors of this strong model on these rows and nothing else.",
    )


def _stability(grid: list[float], scores: FloatArray) -> RankStability | None:
    if not grid or scores.shape[1] < 2:
        return None
    table = ranking.kendall_table(list(scores))
    taus = [tau for row in table for tau in row if tau is not None]
    return RankStability(grid=grid, kendall_tau=table, lowest=min(taus) if taus else None)


def _warnings(
    spec: Spec, strong: StrongModel, rows: int, side: StrongSide, models: list[WeakModel]
) -> list[str]:
    warnings = []
    if rows < 5 * strong.rank_s:
        warnings.append(
            f"few_rows: {rows} rows for {strong.rank_s} strong directions; at least "
            f"{5 * strong.rank_s} keep the trailing directions from being noise"
        )
    if side.moments.repeated:
        warnings.append(f"duplicate_rows: {side.moments.repeated} rows repeat an earlier row")
    if not aligned([spec.strong, *spec.weak]):
        warnings.append("no_ids: row alignment was not checked for every model")
    everyone: list[StrongModel | WeakModel] = [strong, *models]
    warnings += [warning for one in everyone for warning in cut_texts(one.name, one.encoding)]
    warnings += [
        f"degenerate: {m.name} has equal rows only, or no direction reaches alpha_w"
        for m in models
        if not m.rank_w
    ]
    if any(model.saturated for model in models):
        warnings.append(
            "saturated: metric_op is at its ceiling for all candidates and cannot rank them; "
            "see metric_fro"
        )
    if side.code is not None and not side.code.complete:
        warnings.append(
            f"partial_labels: label_projection rests on {side.code.labelled} labelled rows"
        )
    if max(spec.beta_s, spec.beta_w) >= 0.3 and spec.scale == "mean_norm":
        warnings.append("large_beta: the ranking is known to degrade from beta 0.3 on")
    return warnings
