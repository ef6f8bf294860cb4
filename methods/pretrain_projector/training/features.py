"""Runs `pretrain-projector-features`: the vision tower reads the images of some captions."""

from __future__ import annotations

import numpy as np

from methods.arrays.npz import savez
from methods.context import RunContext
from methods.errors import JobError
from methods.inference.image_text_model import image_text_model
from methods.measure_modality_gap.reading.pairs import Pair, Pairs
from methods.pretrain_projector.child_jobs import FeaturesMade, FeaturesPart
from methods.pretrain_projector.settings import Recipe
from methods.pretrain_projector.training.frozen import Frozen

_BATCH = 32


def run(spec: FeaturesPart, ctx: RunContext) -> FeaturesMade:
    """Read the images of a range of rows; see `FeaturesPart` and `FeaturesMade`."""
    wanted = range(spec.start, spec.stop)
    source = Pairs(spec.captions, len(wanted), True, 0, ctx, wanted)
    if not spec.store:
        checked = [one.row for one in source.read()]
        return FeaturesMade(rows=checked, bad=source.skipped, bytes=0, file=None)
    frozen = Frozen.of(image_text_model(ctx.models, spec.model), Recipe())
    rows: list[int] = []
    found = []
    waiting: list[Pair] = []

    def read() -> None:
        if waiting:
            features = frozen.features([one.image for one in waiting]).half().cpu().numpy()
            if not np.isfinite(features).all():
                raise JobError(
                    "numerical_failure",
                    f"Features of the images of rows {waiting[0].row} to {waiting[-1].row} are not "
                    "finite in half precision.",
                )
            rows.extend(one.row for one in waiting)
            found.append(features)
            waiting.clear()

    for pair in source.read():
        waiting.append(pair)
        ctx.progress("reading images", len(rows), len(wanted), "images")
        if len(waiting) == _BATCH:
            read()
    read()
    features = np.concatenate(found) if found else np.zeros((0, 1, 1, 1), dtype=np.float16)
    data = savez(rows=np.array(rows, dtype=np.int64), features=features)
    file = ctx.save_artifact("features.npz", data, "application/x-npz")
    return FeaturesMade(rows=rows, bad=source.skipped, bytes=features.nbytes, file=file.id)
