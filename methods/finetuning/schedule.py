"""Which rows and which learning rate each step of a fine-tuning has."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from methods.typing import IntArray


@dataclass(frozen=True)
class Plan:
    """How to train.

    Attributes:
        rows: rows of a step. tokens: of a part of a step that is in memory at a time.
        checkpoints: how many, evenly spaced, the last at the end.
        vision: train the image encoder too.
        exactly: so many steps, whatever `epochs` says; None: as many as the epochs need.
    """

    epochs: float = 1.0
    checkpoints: int = 7
    rows: int = 32
    tokens: int = 16_384
    learning_rate: float = 2e-5
    warmup: float = 0.03
    weight_decay: float = 0.0
    vision: bool = False
    seed: int = 0
    exactly: int | None = None

    def steps(self, count: int) -> int:
        """Steps over `count` rows."""
        return self.exactly or max(1, math.ceil(count * self.epochs / self.rows))

    def marks(self, count: int) -> list[int]:
        """After which steps the checkpoints are, ascending; fewer where steps are few."""
        steps, wanted = self.steps(count), self.checkpoints
        return sorted({max(1, round(steps * (n + 1) / wanted)) for n in range(wanted)})

    def rate(self, step: int, steps: int) -> float:
        """Learning rate of step 0, 1, ...: linear up, then a cosine down to 0."""
        rising = math.ceil(self.warmup * steps)
        if step < rising:
            return self.learning_rate * (step + 1) / rising
        share = (step - rising) / max(1, steps - rising)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * share))


def row_order(plan: Plan, count: int) -> Iterator[IntArray]:
    """The rows of each step: every epoch is an order of its own."""
    orders = (
        np.random.default_rng([plan.seed, 11, epoch]).permutation(count)
        for epoch in itertools.count()
    )
    return itertools.islice(full_batches(orders, plan.rows), plan.steps(count))


def full_batches(orders: Iterable[IntArray], rows: int) -> Iterator[IntArray]:
    """Batches of so many rows from one order after the other: none is cut short by an end."""
    left: IntArray = np.zeros(0, dtype=np.int64)
    for order in orders:
        left = np.concatenate([left, order])
        while len(left) >= rows:
            yield left[:rows]
            left = left[rows:]
