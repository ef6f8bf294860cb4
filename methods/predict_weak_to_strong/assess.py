"""One weak model's numbers: on all rows, over the grid, and on the half-samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from methods.predict_weak_to_strong import core
from methods.predict_weak_to_strong.labels import LabelBlocks, LabelCode
from methods.predict_weak_to_strong.passes import JointMoments, SelfMoments
from methods.predict_weak_to_strong.resampling import (
    Decomposition,
    HalfLabels,
    half_sample_scores,
)
from methods.predict_weak_to_strong.spectrum import Spectrum
from methods.typing import FloatArray

#: The scores that can rank, in the order of the score arrays.
SCORES = ("metric_op", "metric_fro", "label_projection")


@dataclass(frozen=True)
class Assessment:
    """Scores of one weak model.

    Attributes:
        scores: operator norm, Frobenius, label projection (NaN without labels), [3].
        grid: the same at each beta of the grid, [betas, 3].
        halves: the same on each half-sample, [halves, 3].
        angles: smallest principal angles in degrees.
        cka: linear CKA, None for a constant representation.
        dof: effective dimension.
    """

    scores: FloatArray
    grid: FloatArray
    halves: FloatArray
    angles: FloatArray
    cka: float | None
    dof: float


@dataclass(frozen=True)
class StrongSide:
    """What is computed once for all weak models.

    Attributes:
        halves: chosen blocks of each half-sample, [halves, blocks].
        decompositions: the strong directions of each half.
    """

    spectrum: Spectrum
    moments: SelfMoments
    code: LabelCode | None
    halves: NDArray[np.bool_]
    decompositions: list[Decomposition]


def strong_halves(
    spectrum: Spectrum, moments: SelfMoments, halves: NDArray[np.bool_], *, center: bool
) -> list[Decomposition]:
    """The strong directions of each half-sample."""
    if moments.blocks is None:
        return []
    return [
        Decomposition.of(moments.blocks.moment(half, center=center), spectrum.scale)
        for half in halves
    ]


def label_moments(code: LabelCode, strong: LabelBlocks, weak: LabelBlocks) -> core.LabelMoments:
    """The label sums of both sides in one value."""
    return core.LabelMoments(strong.sums, weak.sums, strong.counts, code.power, code.complete)


def assess(
    strong: StrongSide,
    weak: Spectrum,
    joint: JointMoments,
    betas: tuple[float, float],
    grid: Sequence[float],
    *,
    center: bool,
) -> Assessment:
    """All numbers of one weak model."""
    c = core.overlap(strong.spectrum, weak, joint.cross)
    labels = None
    if strong.code and strong.moments.labels and joint.labels:
        labels = label_moments(strong.code, strong.moments.labels, joint.labels)

    def scores(beta_s: float, beta_w: float) -> list[float]:
        found = core.coverage_metrics(strong.spectrum.scaled, weak.scaled, c, beta_s, beta_w)
        projection = np.nan
        if labels is not None:
            projection = core.label_projection(strong.spectrum, weak, c, labels, (beta_s, beta_w))
        return [min(found.operator_norm, 1.0), min(found.frobenius, 1.0), projection]

    return Assessment(
        scores=np.array(scores(*betas)),
        grid=np.array([scores(beta, beta) for beta in grid]).reshape(-1, 3),
        halves=_half_scores(strong, weak, joint, betas, center=center),
        angles=core.principal_angles(c),
        cka=core.linear_cka(strong.spectrum, weak, joint.cross) if weak.rank else None,
        dof=core.effective_dimension(weak.scaled, betas[1]),
    )


def _half_scores(
    strong: StrongSide,
    weak: Spectrum,
    joint: JointMoments,
    betas: tuple[float, float],
    *,
    center: bool,
) -> FloatArray:
    found = np.full((len(strong.decompositions), 3), np.nan)
    if joint.blocks_sw is None or joint.blocks_ww is None:
        return found
    k_s, k_w = joint.blocks_sw.products.shape[1:]
    for row, (half, decomposition) in enumerate(
        zip(strong.halves, strong.decompositions, strict=True)
    ):
        labels = None
        if strong.code and strong.moments.labels and joint.labels:
            labels = HalfLabels(
                strong.moments.labels.sums[half][:, :k_s],
                joint.labels.sums[half][:, :k_w],
                joint.labels.counts[half],
                strong.code.complete,
            )
        scores = half_sample_scores(
            decomposition,
            Decomposition.of(joint.blocks_ww.moment(half, center=center), weak.scale),
            joint.blocks_sw.moment(half, center=center),
            betas,
            labels,
        )
        found[row, :2] = scores.operator_norm, scores.frobenius
        if scores.label_projection is not None:
            found[row, 2] = scores.label_projection
    return found
