"""Glue of `predict-weak-to-strong`: files or texts in, ranked supervisors out."""

from __future__ import annotations

from methods.arrays.dealing import half_samples
from methods.arrays.streams import Source
from methods.context import RunContext
from methods.errors import JobError
from methods.predict_weak_to_strong import report
from methods.predict_weak_to_strong.assess import Assessment, StrongSide, assess, strong_halves
from methods.predict_weak_to_strong.labels import LabelCode, read_label_code
from methods.predict_weak_to_strong.passes import read_joint, read_self, read_spectrum
from methods.predict_weak_to_strong.representations import Model, check_models, open_model
from methods.predict_weak_to_strong.resampling import resampled_directions
from methods.predict_weak_to_strong.result import Result
from methods.predict_weak_to_strong.spec import Spec
from methods.predict_weak_to_strong.spectrum import Spectrum
from methods.text_rows import Texts


def run(spec: Spec, ctx: RunContext) -> Result:
    """Rank the weak models of a request.

    Raises:
        JobError: `input_unreadable`, `input_invalid` or `too_large`, naming file, row and field;
            `model_unknown` or `model_unavailable`, naming the model.
    """
    ctx.progress("check", 0, len(spec.weak), "models")
    texts = None if spec.texts is None else Texts(ctx, spec.texts)
    rows = check_models(ctx, [spec.strong, *spec.weak], texts)
    code = None
    if spec.labels is not None:
        given = spec.labels
        source = Source("labels", (given.file,), given.array, given.ids, missing=True)
        code = read_label_code(ctx, source, given.kind, rows, center=spec.center)
    candidates = []
    with open_model(ctx, spec.strong, texts) as strong:
        side = _strong_side(spec, ctx, strong, code)
        for index, one in enumerate(spec.weak):
            ctx.progress("weak models", index, len(spec.weak), "models")
            with open_model(ctx, one, texts) as weak:
                candidates.append(_candidate(spec, ctx, side, (strong, weak)))
    ctx.progress("weak models", len(spec.weak), len(spec.weak), "models")
    return report.result(spec, strong, side, candidates)


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


def _candidate(
    spec: Spec, ctx: RunContext, side: StrongSide, models: tuple[Model, Model]
) -> report.Candidate:
    weak = models[1]
    spectrum = read_spectrum(ctx, weak, spec, spec.alpha_w, ctx.rng)
    found = _assess(spec, ctx, side, models, spectrum)
    return report.Candidate(weak, spectrum.rank, spectrum.scaled[:20].tolist(), found)


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
