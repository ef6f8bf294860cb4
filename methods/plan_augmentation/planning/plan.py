"""The plan: slow rows by a rule, and how many new images each is the source of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from methods.errors import JobError
from methods.plan_augmentation.planning import counts
from methods.plan_augmentation.planning.reading import Outputs
from methods.plan_augmentation.planning.split import (
    ClassSplit,
    adjusted_rand,
    cross_entropy,
    slow_by,
    slow_rows,
    split,
)
from methods.plan_augmentation.spec import Spec
from methods.seeds import derived_seed
from methods.typing import BoolArray, FloatArray, IntArray

Couple = tuple[int, int]


@dataclass
class Planned:
    """A plan.

    Attributes:
        splits: of the classes. slow: (N,) by the rule. losses, margins: (N,).
        copies: (N,) new images of each row, where the request wants them.
        agreement: with the split at a later epoch; None: there was none.
        noise: (N,) slow and wrong at the end of the plain training; None: not known.
    """

    outputs: Outputs
    splits: list[ClassSplit]
    slow: BoolArray
    losses: FloatArray
    margins: FloatArray
    copies: IntArray
    agreement: float | None
    noise: BoolArray | None = None
    targets: IntArray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    @property
    def total(self) -> int:
        """New images."""
        return int(self.copies.sum())


def plan(spec: Spec, outputs: Outputs, check: Callable[[], None]) -> Planned:
    """Split and count.

    Raises:
        JobError: `numerical_failure` where no class can be split; `input_invalid` where fewer new
            images are allowed than there are classes to share them equally.
    """
    labels, classes = outputs.labels, len(outputs.classes)
    losses = cross_entropy(outputs.logits, labels)
    splits = split(outputs.logits, labels, losses, classes, spec.seed, check)
    if all(one.unsplit for one in splits):
        raise JobError(
            "numerical_failure",
            "No class has two different outputs, so that none can be split: train longer, or bring "
            "other outputs.",
        )
    agreement = None
    if outputs.later is not None:
        later_losses = cross_entropy(outputs.later, labels)
        later = split(outputs.later, labels, later_losses, classes, spec.seed, check)
        agreement = adjusted_rand(*(slow_rows(own, len(labels)) for own in (splits, later)))
    margins = np.zeros(len(labels))
    for one in splits:
        margins[one.rows] = one.margin
    slow = slow_by(spec.rule, splits, losses, outputs.logits, labels)
    none = np.zeros(len(labels), dtype=np.int64)
    found = Planned(outputs, splits, slow, losses, margins, none, agreement)
    count(found, spec)
    return found


def count(found: Planned, spec: Spec) -> None:
    """Fill in how many new images each row is the source of."""
    labels, classes = found.outputs.labels, len(found.outputs.classes)
    sources = found.slow
    if spec.exclude_suspected_noise and found.noise is not None:
        sources = sources & ~found.noise
    with_slow = len(set(labels[sources].tolist()))
    if (
        spec.class_balance == "equal"
        and spec.max_new_images is not None
        and spec.max_new_images < with_slow
    ):
        raise JobError(
            "input_invalid",
            f"max_new_images is {spec.max_new_images}, and {with_slow} classes have slow rows: "
            "raise it, or set class_balance to none.",
        )
    # Rules by loss prefer by loss, the cluster rule by how far a row is on its side.
    rank = found.margins if spec.rule == "cluster" else found.losses
    found.targets = counts.targeted(
        sources,
        labels,
        rank,
        classes,
        spec.times,
        spec.class_balance,
        spec.max_new_images,
    )
    total = int(found.targets.sum())
    rng = np.random.default_rng(derived_seed(spec.seed, "where"))
    if spec.spread == "slow":
        found.copies = found.targets
    elif spec.spread == "all":
        found.copies = counts.spread(total, len(labels), rng)
    else:
        drawn = int((found.targets > 0).sum())
        found.copies = counts.random_part(total, drawn, len(labels), rng)


def controls(found: Planned, spec: Spec) -> dict[str, IntArray]:
    """New images of each row in the arms that the plan is compared with."""
    rows, total = len(found.outputs.labels), int(found.targets.sum())
    sources = int((found.targets > 0).sum())
    return {
        "random-part": counts.random_part(
            total, sources, rows, np.random.default_rng(derived_seed(spec.seed, "random-part"))
        ),
        "spread": counts.spread(
            total, rows, np.random.default_rng(derived_seed(spec.seed, "spread"))
        ),
    }


def couples(copies: IntArray) -> list[Couple]:
    """Rows with the numbers of their copies, copy after copy: more copies only add some."""
    return [
        (int(row), copy)
        for copy in range(1, int(copies.max(initial=0)) + 1)
        for row in np.flatnonzero(copies >= copy)
    ]
