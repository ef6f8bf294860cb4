"""Whether a proxy learned enough for its checkpoints to say something."""

from __future__ import annotations

import numpy as np

from methods.finetuning.loop import Trained
from methods.typing import AnyArray

#: A loss that falls by less than this share did not fall.
_FALL = 0.02
#: Readings of two checkpoints that differ by less than this share of their size are alike.
_ALIKE = 1e-3


def learning_warnings(trained: Trained, wanted: int, readings: AnyArray | None) -> list[str]:
    """What a reader has to know of the fine-tuning.

    Args:
        wanted: checkpoints that were asked for.
        readings: (N, T, ...) of every checkpoint; None where only one was read.
    """
    found = []
    steps, losses = trained.marks[-1], trained.losses
    if len(trained.marks) < wanted:
        found.append(
            f"The fine-tuning has {steps} steps, fewer than the {wanted} checkpoints asked for: "
            f"{len(trained.marks)} were kept. Raise model.fine_tune.epochs or lower batch_rows."
        )
    if len(losses) > 1 and losses[-1] > (1 - _FALL) * losses[0]:
        curve = ", ".join(f"{loss:.3g}" for loss in losses)
        found.append(
            f"The proxy hardly learned: its loss at the checkpoints is {curve}. What it says of "
            "the rows is that of an untrained model; raise model.fine_tune.learning_rate or epochs."
        )
    if readings is not None and readings.shape[1] > 1:
        values = np.nan_to_num(readings.astype(np.float64))
        moved = np.abs(np.diff(values, axis=1)).mean()
        if moved <= _ALIKE * np.abs(values).mean():
            found.append(
                "The checkpoints say nearly the same of every row, so that trajectories are flat: "
                "raise model.fine_tune.learning_rate or epochs."
            )
    return found
