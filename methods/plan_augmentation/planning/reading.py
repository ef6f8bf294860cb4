"""Outputs that a user brings along."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from methods.arrays.named import open_arrays
from methods.context import RunContext
from methods.errors import JobError
from methods.plan_augmentation.settings import GivenOutputs
from methods.typing import FloatArray, IntArray


@dataclass(frozen=True)
class Outputs:
    """What a network says of all training rows after few epochs.

    Attributes:
        logits: (N, C). later: the same at a later epoch; None: not known. ids: (N,) or None.
    """

    logits: FloatArray
    labels: IntArray
    classes: list[str]
    epoch: int | None
    later: FloatArray | None = None
    ids: list[str] | None = None


def given(asked: GivenOutputs, ctx: RunContext) -> Outputs:
    """Read and check them.

    Raises:
        JobError: `input_invalid` with the array and the rows; `input_unreadable`.
    """
    with ctx.open_input(asked.input) as stream:
        file = open_arrays(stream, "outputs", texts=True)
        logits = file.read(file.pick(asked.array, ["logits", "outputs"], "logits"))
        labels = file.read(file.pick(asked.labels, [], "labels"))
        own = None if asked.ids is None else file.read(file.pick(asked.ids, [], "ids"))
    if logits.ndim != 2 or logits.shape[1] < 2:
        raise JobError(
            "input_invalid",
            f"outputs: the logits have the shape {logits.shape}, not (rows, classes).",
        )
    if labels.shape != (len(logits),):
        raise JobError(
            "input_invalid",
            f"outputs: {asked.labels} has the shape {labels.shape}; logits have {len(logits):,} "
            "rows.",
        )
    for name, array in (("the logits", logits), (asked.labels, labels)):
        if array.dtype.kind not in "biuf":
            raise JobError(
                "input_invalid", f"outputs: {name} are no numbers; labels are classes from 0."
            )
    values = np.asarray(logits, dtype=np.float64)
    if bad := np.flatnonzero(~np.isfinite(values).all(axis=1))[:5].tolist():
        raise JobError("input_invalid", f"outputs: logits are not finite at rows {bad}.")
    kinds = np.asarray(labels)
    whole = kinds.astype(np.int64)
    count = logits.shape[1]
    wrong = (whole != kinds) | (whole < 0) | (whole >= count)
    if bad := np.flatnonzero(wrong)[:5].tolist():
        raise JobError(
            "input_invalid",
            f"outputs: {asked.labels} has no class from 0 to {count - 1} at rows {bad}.",
        )
    ids = None
    if own is not None:
        ids = [str(one) for one in own.tolist()]
        if len(ids) != len(whole):
            raise JobError("input_invalid", f"outputs: {asked.ids} has {len(ids):,} ids.")
        if len(set(ids)) < len(ids):
            twice = next(one for one in ids if ids.count(one) > 1)
            raise JobError("input_invalid", f"outputs: the id {twice[:60]!r} occurs twice.")
    return Outputs(values, whole, [str(kind) for kind in range(count)], asked.epoch, None, ids)
