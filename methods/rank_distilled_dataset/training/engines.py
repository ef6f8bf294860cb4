"""How trainings are carried out: one behind the other, compiled, replayed, or stacked.

All engines do the same arithmetic on the same images in the same order. They round differently,
about 1e-6 of a weight a step, which a long training amplifies to some test images: so the
engine is part of what a training is kept under.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from methods.rank_distilled_dataset.data.examples import Examples
from methods.rank_distilled_dataset.train_settings import SIDE_BY_SIDE, EngineName
from methods.rank_distilled_dataset.training.cuda_graphs import GraphSession
from methods.rank_distilled_dataset.training.session import Check, Curve, Session, advance
from methods.rank_distilled_dataset.training.stacking import train_stacked

Make = Callable[[type[Session]], Session]


class CompiledSession(Session):
    """Passes fused by `torch.compile`; shapes are few, so each gets code of its own."""

    def __init__(self, network: nn.Module, *others: Any) -> None:
        super().__init__(network, *others)
        # Training and evaluation, the last batch and the last chunk: more than by default.
        torch._dynamo.config.recompile_limit = 64
        self.forward = torch.compile(network, dynamic=False)


_SESSIONS: dict[EngineName, type[Session]] = {
    "sequential": Session,
    "compiled": CompiledSession,
    "graph": GraphSession,
    "stacked": Session,
}


def train_all(
    engine: EngineName,
    trainings: Sequence[Make],
    evaluated: Mapping[str, Examples],
    check: Check,
    done: Callable[[int, Curve], None],
) -> None:
    """Carry out trainings whose recipes differ in learning rate and giving up alone.

    Args:
        trainings: each makes a session of the type it is given, when it is its turn.
        done: told each curve with its place, as soon as it is there.

    Where a GPU has no room for so many side by side, half as many go.

    Raises:
        JobError: the engine does not run on this device.
    """
    width, start = SIDE_BY_SIDE[engine], 0
    carry = train_stacked if engine == "stacked" else advance
    while start < len(trainings):
        part = trainings[start : start + width]
        try:
            curves = carry([make(_SESSIONS[engine]) for make in part], evaluated, check)
        except torch.OutOfMemoryError:
            if len(part) < 2:
                raise
            width = len(part) // 2
            continue
        for place, curve in enumerate(curves, start):
            done(place, curve)
        start += len(curves)
