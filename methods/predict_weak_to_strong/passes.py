"""Passes over the files: spectra first, then joint moments of projected rows.

Two passes a weak model, one more over the strong model each time: reading again is what keeps the
memory independent of the number of rows and of candidates.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from methods.arrays.moments import CrossMoments, accumulate
from methods.arrays.streams import (
    chunk_rows,
    read_aligned,
    read_chunks,
)
from methods.context import RunContext
from methods.errors import JobError
from methods.predict_weak_to_strong.labels import LabelBlocks, LabelCode
from methods.predict_weak_to_strong.representations import Model
from methods.predict_weak_to_strong.resampling import BlockMoments
from methods.predict_weak_to_strong.spec import Preparation
from methods.predict_weak_to_strong.spectrum import (
    Spectrum,
    randomized_spectrum,
    spectrum_of_moments,
)
from methods.typing import FloatArray

RANDOMIZED_ABOVE = 2048
RANDOMIZED_RANK = 512
MAX_EXACT_COLUMNS = 8192


def read_spectrum(
    ctx: RunContext, model: Model, prep: Preparation, alpha: float, rng: np.random.Generator
) -> Spectrum:
    """The spectrum of one representation, exact or randomised as the request says."""
    rows = chunk_rows(model.columns)
    unit_norm = prep.scale == "mean_norm"
    wide = prep.method == "auto" and model.columns > RANDOMIZED_ABOVE
    if prep.method == "randomized" or wide:
        return randomized_spectrum(
            lambda: read_chunks(ctx, model.source, rows),
            model.columns,
            rng,
            center=prep.center,
            unit_norm=unit_norm,
            alpha=alpha,
            max_rank=min(prep.max_rank, RANDOMIZED_RANK),
        )
    if model.columns > MAX_EXACT_COLUMNS:
        raise JobError(
            "too_large",
            f"{model.source.label}: {model.columns} columns; above {MAX_EXACT_COLUMNS} the method "
            "has to be randomized",
        )
    moments = accumulate((rows, rows) for rows in read_chunks(ctx, model.source, rows))
    return spectrum_of_moments(
        moments, center=prep.center, unit_norm=unit_norm, alpha=alpha, max_rank=prep.max_rank
    )


@dataclass
class SelfMoments:
    """What one representation alone contributes.

    Attributes:
        blocks: moments with itself by block, of the leading directions, for resampling.
        labels: sums with the labels by block.
        repeated: rows equal to an earlier row, among the first `DuplicateRows.LIMIT`.
    """

    blocks: BlockMoments | None
    labels: LabelBlocks | None
    repeated: int


class DuplicateRows:
    """Counts repeated rows among the first 65,536; the limit bounds its memory."""

    LIMIT = 65536

    def __init__(self) -> None:
        self._seen: set[int] = set()
        self._rows = 0

    def add(self, rows: FloatArray) -> None:
        rows = rows[: self.LIMIT - self._rows]
        self._rows += len(rows)
        for row in rows:
            self._seen.add(hash(row.tobytes()))

    @property
    def repeated(self) -> int:
        return self._rows - len(self._seen)


def read_self(
    ctx: RunContext, model: Model, spectrum: Spectrum, code: LabelCode | None, resampled: int
) -> SelfMoments:
    """Second pass over the strong model.

    Args:
        resampled: leading directions kept for resampling, 0 for none.
    """
    blocks = BlockMoments(resampled, resampled) if resampled else None
    sums = LabelBlocks(spectrum.rank, len(code.mean)) if code else None
    duplicates, start = DuplicateRows(), 0
    sources = [model.source] + ([code.source] if code else [])
    for chunk in read_aligned(ctx, sources, chunk_rows(model.columns)):
        duplicates.add(chunk[0])
        z = spectrum.project(chunk[0])
        if blocks is not None:
            blocks.add(start, z[:, :resampled], z[:, :resampled])
        if sums is not None and code is not None:
            sums.add(start, z, *code.encode(chunk[1]))
        start += len(z)
    return SelfMoments(blocks, sums, duplicates.repeated)


@dataclass
class JointMoments:
    """What a weak representation and the strong one have in common.

    Attributes:
        cross: (1/n) sum z_s z_w^T, [r_s, r_w].
        blocks_sw, blocks_ww: moments by block of the leading directions, for resampling.
        labels: sums of z_w with the labels by block.
    """

    cross: FloatArray
    blocks_sw: BlockMoments | None
    blocks_ww: BlockMoments | None
    labels: LabelBlocks | None


def read_joint(
    ctx: RunContext,
    models: tuple[Model, Model],
    spectra: tuple[Spectrum, Spectrum],
    code: LabelCode | None,
    resampled: tuple[int, int],
    *,
    center: bool,
) -> JointMoments:
    """Second pass over a weak model together with the strong one.

    Args:
        models, spectra: strong first, then weak.
        resampled: leading directions of each kept for resampling; zeros for none.
    """
    strong, weak = spectra
    k_s, k_w = resampled
    blocks_sw = BlockMoments(k_s, k_w) if k_s else None
    blocks_ww = BlockMoments(k_w, k_w) if k_s else None
    sums = LabelBlocks(weak.rank, len(code.mean)) if code else None
    total: CrossMoments | None = None
    start = 0
    sources = [model.source for model in models] + ([code.source] if code else [])
    for chunk in read_aligned(ctx, sources, chunk_rows(max(m.columns for m in models))):
        z_s, z_w = strong.project(chunk[0]), weak.project(chunk[1])
        part = CrossMoments.of(z_s, z_w)
        if total is None:
            total = part
        else:
            total.merge(part)
        if blocks_sw is not None and blocks_ww is not None:
            blocks_sw.add(start, z_s[:, :k_s], z_w[:, :k_w])
            blocks_ww.add(start, z_w[:, :k_w], z_w[:, :k_w])
        if sums is not None and code is not None:
            sums.add(start, z_w, *code.encode(chunk[2]))
        start += len(z_s)
    assert total is not None
    return JointMoments(total.second_moment(center=center), blocks_sw, blocks_ww, sums)
