"""Glue of `predict-weak-to-strong`: files in, ranked supervisors out."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from methods.arrays.streams import Source
from methods.context import RunContext
from methods.errors import JobError
from methods.predict_weak_to_strong import core, figures, ranking
from methods.predict_weak_to_strong.assess import (
    SCORES,
    Assessment,
    StrongSide,
    assess,
    label_moments,
    strong_halves,
)
from methods.predict_weak_to_strong.labels import LabelCode, read_label_code
from methods.predict_weak_to_strong.passes import (
    Model,
    open_model,
    read_joint,
    read_self,
    read_spectrum,
)
from methods.predict_weak_to_strong.resampling import half_samples, resampled_directions
from methods.predict_weak_to_strong.spec import (
    JOB,
    GridPoint,
    RankStability,
    Recommendation,
    Result,
    Spec,
    StrongModel,
    WeakModel,
)
from methods.predict_weak_to_strong.spectrum import Spectrum
from methods.provenance import provenance

FloatArray = NDArray[np.float64]


def run(spec: Spec, ctx: RunContext) -> Result:
    """Rank the weak models of a request.

    Raises:
        JobError: `input_unreadable`, `input_invalid` or `too_large`, naming file, row and field.
    """
    ctx.progress("check", 0, len(spec.weak), "models")
    strong = open_model(ctx, spec.strong)
    weak = [open_model(ctx, given, strong.rows) for given in spec.weak]
    code = None
    if spec.labels is not None:
        given = spec.labels
        source = Source("labels", (given.file,), given.array, given.ids, missing=True)
        code = read_label_code(ctx, source, given.kind, strong.rows, center=spec.center)
    side = _strong_side(spec, ctx, strong, code)
    found, spectra = [], []
    for index, model in enumerate(weak):
        ctx.progress("weak models", index, len(weak), "models")
        spectrum = read_spectrum(ctx, model, spec, spec.alpha_w, ctx.rng)
        spectra.append(spectrum)
        found.append(_assess(spec, ctx, side, (strong, model), spectrum))
    ctx.progress("weak models", len(weak), len(weak), "models")
    return _result(spec, strong, side, weak, spectra, found)


def _strong_side(spec: Spec, ctx: RunContext, model: Model, code: LabelCode | None) -> StrongSide:
    ctx.progress("strong model", 0, 2, "passes")
    spectrum = read_spectrum(ctx, model, spec, spec.alpha_s, ctx.rng)
    if spectrum.rank == 0:
        raise JobError(
            "input_invalid",
            f"{model.source.label}: all rows are equal or no direction reaches alpha_s",
        )
    ctx.progress("strong model", 1, 2, "passes")
    kept = resampled_directions(spectrum, spec.beta_s) if spec.n_bootstrap else 0
    moments = read_self(ctx, model, spectrum, code, kept)
    halves = half_samples(spec.n_bootstrap, ctx.rng)
    decompositions = strong_halves(spectrum, moments, halves, center=spec.center)
    return StrongSide(spectrum, moments, code, halves, decompositions)


def _assess(
    spec: Spec, ctx: RunContext, side: StrongSide, models: tuple[Model, Model], weak: Spectrum
) -> Assessment:
    blocks = side.moments.blocks
    resampled = (0, 0)
    if blocks is not None:
        resampled = (blocks.sum_a.shape[1], resampled_directions(weak, spec.beta_w))
    joint = read_joint(ctx, models, (side.spectrum, weak), side.code, resampled, center=spec.center)
    betas = (spec.beta_s, spec.beta_w)
    return assess(side, weak, joint, betas, spec.grid, center=spec.center)


def _result(
    spec: Spec,
    strong: Model,
    side: StrongSide,
    weak: list[Model],
    spectra: list[Spectrum],
    found: list[Assessment],
) -> Result:
    scores = np.array([one.scores for one in found])
    ceiling = float(np.max(core.shrinkage_factors(side.spectrum.scaled, spec.beta_s)))
    saturated = ranking.is_saturated(scores[:, 0], ceiling)
    by = _ranked_by(spec, bool(saturated.any()))
    observed = ranking.ranks(scores[:, by])
    intervals = None
    if spec.n_bootstrap:
        replicates = np.array([one.halves[:, by] for one in found]).T
        intervals = ranking.rank_intervals(replicates, observed)
    grid = np.array([one.grid[:, by] for one in found]).T
    strong_result = _strong_result(spec, strong, side)
    models = [
        _weak_result(
            spec, side, weak[i], spectra[i], one, (observed, ranking.ranks(grid)), intervals, i,
            bool(saturated[i]), strong_result.ceiling_error,
        )
        for i, one in enumerate(found)
    ]  # fmt: skip
    best_first = [int(i) for i in np.argsort(observed, kind="stable")]
    lines = [(models[i].name, spectra[i].scaled[:20].tolist()) for i in best_first]
    return Result(
        n_used=strong.rows,
        n_labelled=side.code.labelled if side.code else 0,
        strong=strong_result,
        weak=models,
        recommended=_recommendation(models, by, observed, intervals),
        rank_stability=_stability(spec.grid, grid),
        warnings=_warnings(spec, strong, side, models),
        figures=[
            figures.metric_against_baselines(models),
            figures.spectra(strong_result.spectrum_top20, lines),
            figures.angles(models),
        ],
        provenance=provenance(JOB, spec.seed),
    )


def _ranked_by(spec: Spec, saturated: bool) -> int:
    if spec.rank_by != "auto":
        return SCORES.index(spec.rank_by)
    if spec.labels is not None:
        return 2
    return 1 if saturated else 0


def _strong_result(spec: Spec, model: Model, side: StrongSide) -> StrongModel:
    spectrum, sums = side.spectrum, side.moments.labels
    error = None
    if side.code is not None and sums is not None:
        moments = label_moments(side.code, sums, sums)
        error = core.ceiling_error(spectrum, moments, spec.beta_s, model.rows)
    return StrongModel(
        name=spec.strong.name,
        columns=model.columns,
        rank_s=spectrum.rank,
        dof_s=core.effective_dimension(spectrum.scaled, spec.beta_s),
        participation_ratio=core.participation_ratio(spectrum),
        kept_variance=min(float(spectrum.eigenvalues.sum()) / spectrum.trace, 1.0),
        spectrum_top20=spectrum.scaled[:20].tolist(),
        ceiling_error=error,
    )


def _weak_result(
    spec: Spec,
    side: StrongSide,
    model: Model,
    spectrum: Spectrum,
    one: Assessment,
    ranks: tuple[ranking.IntArray, ranking.IntArray],
    intervals: ranking.IntArray | None,
    index: int,
    saturated: bool,
    ceiling_error: float | None,
) -> WeakModel:
    operator_norm, frobenius, projection = (float(score) for score in one.scores)
    power = spec.mean_squared_label if side.code is None else side.code.power
    labelled = ceiling_error is not None
    return WeakModel(
        name=model.source.name,
        status="ok" if spectrum.rank else "degenerate",
        columns=model.columns,
        rank_w=spectrum.rank,
        metric_op=operator_norm,
        metric_fro=frobenius,
        upper_bound_predgap=operator_norm**2 * power,
        dof_w=one.dof,
        cka_linear=one.cka,
        principal_angles_top10=one.angles.tolist(),
        saturated=saturated,
        label_projection=projection if labelled else None,
        predicted_err_w2s=projection + ceiling_error if ceiling_error is not None else None,
        rank=int(ranks[0][index]),
        rank_ci=None if intervals is None else (int(intervals[index, 0]), int(intervals[index, 1])),
        over_grid=[
            GridPoint(
                beta=beta,
                metric_op=float(one.grid[i, 0]),
                metric_fro=float(one.grid[i, 1]),
                rank=int(ranks[1][i, index]),
            )
            for i, beta in enumerate(spec.grid)
        ],
    )


def _recommendation(
    models: list[WeakModel],
    by: int,
    observed: ranking.IntArray,
    intervals: ranking.IntArray | None,
) -> Recommendation:
    best = int(np.argmin(observed))
    dof = np.array([model.dof_w for model in models])
    alike = [model for model in models if model.cka_linear is not None]
    words = (
        "Label-free ranking is only moderately better than picking the weak model with the "
        "largest effective dimension; compare both before trusting it. "
        if by != 2
        else "Ranked by true labels, which predict far better than any label-free score. "
    )
    return Recommendation(
        name=models[best].name,
        ranked_by=SCORES[by],
        ties=[models[i].name for i in ranking.ties_with_best(observed, intervals)],
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


def _warnings(spec: Spec, strong: Model, side: StrongSide, models: list[WeakModel]) -> list[str]:
    found = []
    rank = side.spectrum.rank
    if strong.rows < 5 * rank:
        found.append(
            f"few_rows: {strong.rows} rows for {rank} strong directions; at least {5 * rank} keep "
            "the trailing directions from being noise"
        )
    if side.moments.repeated:
        found.append(f"duplicate_rows: {side.moments.repeated} rows repeat an earlier row")
    if not spec.strong.ids or not all(model.ids for model in spec.weak):
        found.append("no_ids: row alignment was not checked for every model")
    found += [
        f"degenerate: {m.name} has equal rows only, or no direction reaches alpha_w"
        for m in models
        if not m.rank_w
    ]
    if any(model.saturated for model in models):
        found.append(
            "saturated: metric_op is at its ceiling for all candidates and cannot rank them; "
            "see metric_fro"
        )
    if side.code is not None and not side.code.complete:
        found.append(
            f"partial_labels: label_projection rests on {side.code.labelled} labelled rows"
        )
    if max(spec.beta_s, spec.beta_w) >= 0.3 and spec.scale == "mean_norm":
        found.append("large_beta: the ranking is known to degrade from beta 0.3 on")
    return found
