"""Trainings by content: laid out, bundled into jobs of about equal cost, done once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import torch
from torch.utils.flop_counter import FlopCounterMode

from methods.context import RunContext
from methods.rank_distilled_dataset.children.spec import (
    TRAININGS,
    Training,
    Trainings,
    TrainingsResult,
)
from methods.rank_distilled_dataset.networks.networks import build
from methods.rank_distilled_dataset.train_settings import SIDE_BY_SIDE, EngineName
from methods.rank_distilled_dataset.training.session import Curve, Recipe

#: A bundle of trainings takes about this long at least: a job costs a few hundredths of that.
BUNDLE_SECONDS = 5.0
#: Floating-point operations a second, and seconds a step whatever its size. They need only be of
#: the right magnitude, and must be constants: bundles that differ are done again.
_SPEED = {"cpu": (5e10, 8e-3), "gpu": (5e12, 3e-3)}


def device_class() -> str:
    """`cpu`, or the name of the GPU: its arithmetic is part of what determines a curve."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"


@dataclass(frozen=True)
class TrainingKey:
    """One training to do; equal ones are done once.

    Attributes:
        of: JSON of a `Trainings` with nothing to do: all that it has in common with others.
        seconds: an estimate of its cost on one core.
    """

    of: str
    lr: float
    run: int
    prunable: bool
    seconds: float


@dataclass(frozen=True)
class Sizes:
    """What the cost of trainings depends on.

    Attributes:
        shape: of an image. classes: of the data set.
        full: images of the training set.
        evaluated: images of each evaluated set.
    """

    shape: tuple[int, int, int]
    classes: int
    full: int
    evaluated: dict[str, int]

    def seconds(self, of: Trainings, recipe: Recipe, late: Sequence[str]) -> float:
        """An estimate for one training: three passes an image trained on, one evaluated."""
        images = self.full if of.ipc is None else of.ipc * self.classes
        points = len({*recipe.evaluate, recipe.epochs})
        tested = sum(n * (1 if name in late else points) for name, n in self.evaluated.items())
        speed, step = _SPEED[of.device]
        work = (3 * recipe.epochs * images + tested) * _operations(
            of.model, self.shape, self.classes
        )
        return work / speed + step * recipe.epochs * math.ceil(images / recipe.batch_size)


@lru_cache(maxsize=64)
def _operations(model: str, shape: tuple[int, int, int], classes: int) -> int:
    """Floating-point operations of one image's way through a network."""
    network = build(model, shape, classes).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.zeros(1, *shape))
    return int(counter.get_total_flops())


def by_origin(wanted: Sequence[TrainingKey]) -> dict[str, list[TrainingKey]]:
    """Different trainings by what they have in common, in a settled order."""
    found: dict[str, list[TrainingKey]] = {}
    for one in dict.fromkeys(wanted):
        found.setdefault(one.of, []).append(one)
    for group in found.values():
        group.sort(key=lambda one: (one.run, one.lr))
    return found


def bundles(groups: Iterable[list[TrainingKey]], widths: Iterable[int]) -> list[list[TrainingKey]]:
    """Trainings of one thing by one recipe in parts of about equal cost, the longest part first.

    How one thing is bundled does not depend on the others: a job with one more candidate finds all
    bundles of the job before.

    Args:
        widths: of each group, how many trainings go side by side: a part has as many at least.
    """
    found = []
    for group, width in zip(groups, widths, strict=True):
        most = math.ceil(len(group) / width)
        count = max(1, min(most, int(sum(w.seconds for w in group) / BUNDLE_SECONDS)))
        edges = [round(place * len(group) / count) for place in range(count + 1)]
        found += [group[a:b] for a, b in pairwise(edges)]
    return sorted(found, key=lambda bundle: -sum(one.seconds for one in bundle))


#: The engine of each group, by what its trainings have in common.
Choose = Callable[[Mapping[str, Sequence[TrainingKey]]], Mapping[str, EngineName]]


class Runner:
    """Has trainings done, here and by other workers.

    Attributes:
        curves: what there is so far.
        restored: those that another job had done before, or was at.
        devices: where they were done.
        engines: by which engine.
    """

    def __init__(self, ctx: RunContext, choose: Choose) -> None:
        self._ctx, self._choose = ctx, choose
        self.engines: dict[TrainingKey, EngineName] = {}
        self.curves: dict[TrainingKey, Curve] = {}
        self.restored: set[TrainingKey] = set()
        self.devices: set[str] = set()

    def run_all(self, wanted: Sequence[TrainingKey], after_each: Callable[[], None]) -> None:
        """Fill `curves`; `after_each` is called as bundles end."""
        groups = by_origin(wanted)
        # Trainings differ in length by far: what is left is told by their estimates.
        total, done = math.ceil(1000 * sum(one.seconds for one in set(wanted))), 0.0
        engines = self._choose(groups)
        self.engines = {one: engines[one.of] for one in wanted}
        parts = bundles(groups.values(), [SIDE_BY_SIDE[engines[of]] for of in groups])
        self._ctx.progress("training", 0, total, "parts of the work")
        specs = [trainings(bundle, engines[bundle[0].of]) for bundle in parts]
        for child in self._ctx.fan_out(TRAININGS.name, specs):
            found = TrainingsResult.model_validate(child.result)
            for one, curve in zip(parts[child.place], found.curves, strict=True):
                self.curves[one] = Curve(**curve.model_dump())
                if child.reused:
                    self.restored.add(one)
            self.devices.add(found.device)
            done += 1000 * sum(one.seconds for one in parts[child.place])
            self._ctx.progress("training", min(total, round(done)), total, "parts of the work")
            after_each()


def trainings(bundle: list[TrainingKey], engine: EngineName) -> Trainings:
    """The spec of a bundle."""
    common = Trainings.model_validate_json(bundle[0].of)
    todo = [Training(lr=one.lr, run=one.run, prunable=one.prunable) for one in bundle]
    return common.model_copy(update={"todo": todo, "engine": engine})
