"""Glue of `score-weak-labels`."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from methods.arrays.streams import Source, chunk_rows, read_chunks
from methods.context import RunContext
from methods.errors import JobError
from methods.predict_weak_to_strong import core
from methods.predict_weak_to_strong.assess import label_moments
from methods.predict_weak_to_strong.labels import LabelCode, read_label_code
from methods.predict_weak_to_strong.passes import read_joint, read_self, read_spectrum
from methods.predict_weak_to_strong.representations import (
    ENCODED_WITH,
    Model,
    aligned,
    check_models,
    cut_texts,
    open_model,
)
from methods.predict_weak_to_strong.spectrum import Spectrum
from methods.results import FigureBlock, Provenance, axis, chart
from methods.score_weak_labels import blocks
from methods.score_weak_labels.spec import JOB, Result, Spec
from methods.text_rows import Texts
from methods.typing import FloatArray

_LEVELS = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)


def run(spec: Spec, ctx: RunContext) -> Result:
    """Score every row; holds one score a row (8 bytes) beside the moments.

    Raises:
        JobError: `input_unreadable`, `input_invalid` or `too_large`, naming file, row and field.
    """
    texts = None if spec.texts is None else Texts(ctx, spec.texts)
    rows = check_models(ctx, [spec.strong, spec.weak], texts)
    given = spec.weak_labels
    source = Source("weak_labels", (given.file,), given.array, given.ids, missing=True)
    code = read_label_code(ctx, source, given.kind, rows, center=spec.center)
    if not code.complete:
        raise JobError(
            "input_invalid",
            f"{source.label}: {rows - code.labelled} rows have no label; all are needed",
        )
    with open_model(ctx, spec.strong, texts) as strong:
        with open_model(ctx, spec.weak, texts) as weak:
            spectrum, uncovered, warnings = _uncovered(spec, ctx, strong, weak, code)
        scores = _scores(ctx, strong, spectrum, uncovered)
    count = max(round(spec.keep_fraction * rows), 1)
    kept = np.sort(np.argsort(-scores, kind="stable")[:count])
    result = Result(
        experimental=True,
        n_used=rows,
        scores_artifact=_save(ctx, "scores.npy", scores),
        kept_artifact=_save(ctx, "kept.npy", kept.astype(np.int64)),
        n_kept=count,
        threshold=float(scores[kept].min()),
        mean=float(scores.mean()),
        quantiles={f"{level:g}": float(np.quantile(scores, level)) for level in _LEVELS},
        mean_square=float(np.mean(scores**2)),
        warnings=warnings,
        encodings=[one.encoding for one in (strong, weak) if one.encoding is not None],
        provenance=Provenance.of(JOB, spec.seed, *(() if texts is None else ENCODED_WITH)),
    )
    return blocks.present(result, [_histogram(scores, result.threshold)])


def _scores(
    ctx: RunContext, strong: Model, spectrum: Spectrum, uncovered: FloatArray
) -> FloatArray:
    scores, start = np.empty(strong.rows), 0
    for rows in read_chunks(ctx, strong.source, chunk_rows(strong.columns)):
        ctx.progress("scores", start, strong.rows, "rows")
        part = core.example_scores(spectrum, spectrum.project(rows), uncovered)
        scores[start : start + len(part)] = part
        start += len(part)
    return scores


def _uncovered(
    spec: Spec, ctx: RunContext, strong: Model, weak: Model, code: LabelCode
) -> tuple[Spectrum, FloatArray, list[str]]:
    """The strong spectrum, U_s^T P_s (I - P_w) y / sqrt(n) [r_s, columns], and warnings."""
    ctx.progress("moments", 0, 4, "passes")
    spectrum = read_spectrum(ctx, strong, spec, spec.alpha_s, ctx.rng)
    if spectrum.rank == 0:
        raise JobError("input_invalid", f"{strong.source.label}: all rows are equal")
    other = read_spectrum(ctx, weak, spec, spec.alpha_w, ctx.rng)
    ctx.progress("moments", 2, 4, "passes")
    own = read_self(ctx, strong, spectrum, code, 0)
    joint = read_joint(ctx, (strong, weak), (spectrum, other), code, (0, 0), center=spec.center)
    assert own.labels is not None
    assert joint.labels is not None
    moments = label_moments(code, own.labels, joint.labels)
    c = core.overlap(spectrum, other, joint.cross)
    parts = core.uncovered_labels(spectrum, other, c, moments, (spec.beta_s, spec.beta_w))
    warnings = []
    if own.repeated:
        warnings.append(f"duplicate_rows: {own.repeated} rows repeat an earlier row")
    if other.rank == 0:
        warnings.append("degenerate: all rows of the weak model are equal")
    if not aligned([spec.strong, spec.weak]):
        warnings.append("no_ids: row alignment was not checked")
    for one in (strong, weak):
        warnings += cut_texts(one.source.name, one.encoding)
    return spectrum, np.asarray(parts.sum(axis=0) / strong.rows), warnings


def _save(ctx: RunContext, name: str, values: NDArray[Any]) -> str:
    buffer = io.BytesIO()
    np.save(buffer, values, allow_pickle=False)
    return ctx.save_artifact(name, buffer.getvalue(), "application/octet-stream").name


def _histogram(scores: FloatArray, threshold: float) -> FigureBlock:
    # Equal on paper, different by rounding: too narrow a range for any bins.
    counts, edges = np.histogram(np.round(scores, 9), bins=50)
    values = [
        {"from": float(low), "to": float(high), "rows": int(count)}
        for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True)
    ]
    x = axis("from", "Score (unit of the labels)")
    layers: list[dict[str, Any]] = [
        {
            "mark": "bar",
            "encoding": {
                "x": {**x, "bin": {"binned": True}},
                "x2": {"field": "to"},
                "y": axis("rows", "Rows"),
            },
        },
        {
            "data": {"values": [{"threshold": threshold}]},
            "mark": "rule",
            "encoding": {"x": {**x, "field": "threshold"}},
        },
    ]
    return FigureBlock(
        title="Scores of the weak labels",
        caption="Rows to the right of the rule are kept.",
        vega_lite=chart(values, layer=layers),
    )
