"""Everything one model says about the candidates: trainings laid out, done and scored."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray

from methods.context import RunContext
from methods.rank_distilled_dataset import plan, scores, teachers
from methods.rank_distilled_dataset.candidates import Loaded
from methods.rank_distilled_dataset.datasets import RealData, draw_subset, hold_out
from methods.rank_distilled_dataset.plan import Choice, Side, Variant
from methods.rank_distilled_dataset.runs import (
    Labelled,
    Runner,
    Task,
    Teachers,
    derived_seed,
    digested,
)
from methods.rank_distilled_dataset.settings import Train
from methods.rank_distilled_dataset.spec import Candidate, Spec
from methods.rank_distilled_dataset.training import Curve, Examples

FloatArray = NDArray[np.float64]
#: Test images that learning curves are measured on, where only the last epoch counts.
MAX_CURVE = 1000


@dataclass
class Parts:
    """The real data as the trainings use it.

    Attributes:
        train: what full-data networks and random subsets are made of.
        evaluated: held-out part first (but for the official protocol), then the test set.
        held_out: number of images.
    """

    train: Examples
    full: Labelled
    evaluated: dict[str, Labelled]
    held_out: int
    subsets: dict[tuple[int, str], Labelled] = field(default_factory=dict)

    @property
    def tested(self) -> dict[str, Labelled]:
        """All but the held-out part."""
        return {name: found for name, found in self.evaluated.items() if name != "held_out"}


@dataclass
class Scored:
    """A candidate under one model; arrays over the runs, [R]."""

    candidate: Candidate
    train: Train
    sides: dict[tuple[Variant, str], Side]
    choices: dict[tuple[Variant, str], Choice]
    lrs: FloatArray | None = None
    hlr: FloatArray | None = None
    ior: FloatArray | None = None
    ars: FloatArray | None = None
    gain_augmented: FloatArray | None = None
    gain_bare: FloatArray | None = None

    def accuracy(self, variant: Variant, who: str = "candidate") -> FloatArray:
        """Accuracies of a variant; one that is no training of its own is `own`."""
        choice = self.choices.get((variant, who)) or self.choices[("own", who)]
        return choice.accuracy

    def score(self, metric: str) -> FloatArray:
        """What ranks: LRS, ARS or the accuracy in the own setting, [R]; high is good."""
        found = {"lrs": self.lrs, "ars": self.ars}.get(metric)
        return self.accuracy("own") if found is None else found


@dataclass
class Compared:
    """One model's answer."""

    model: str
    scored: list[Scored]
    full: FloatArray | None
    full_curves: list[Curve]


def split(spec: Spec, real: RealData) -> Parts:
    """Hold images out for the choice of learning rates; the official rule chooses on test."""
    test = digested(real.test)
    if spec.protocol == "official":
        return Parts(real.train, digested(real.train), {"test": test}, 0)
    held = torch.from_numpy(hold_out(real.train.labels.numpy(), spec.held_out))
    rest = Examples(real.train.images[~held], real.train.labels[~held])
    kept = digested(Examples(real.train.images[held], real.train.labels[held]))
    evaluated = {"held_out": kept, "test": test}
    if len(real.test.labels) > MAX_CURVE:
        # Only the last epoch counts; the way there is drawn from a part of the test set.
        share = MAX_CURVE / len(real.test.labels)
        some = torch.from_numpy(hold_out(real.test.labels.numpy(), share))
        shown = Examples(real.test.images[some], real.test.labels[some])
        evaluated["curve"] = digested(shown)
    return Parts(rest, digested(rest), evaluated, int(held.sum()))


def full_tasks(spec: Spec, parts: Parts, model: str, classes: int) -> list[Task]:
    """The full-data trainings of a model, one a run."""
    recipe = replace(plan.full_recipe(spec), late=plan.late(parts.tested))
    return [
        Task(model, classes, parts.full, recipe, parts.tested, plan.run_seed(spec, run), "full")
        for run in range(spec.runs)
    ]


def compare(
    spec: Spec,
    model: str,
    parts: Parts,
    loaded: list[Loaded],
    classes: int,
    taught: Teachers,
    runner: Runner,
    ctx: RunContext,
) -> Compared:
    """Do all trainings of one model and score the candidates."""
    wanted = []
    for candidate, found in zip(spec.candidates, loaded, strict=True):
        wanted.append(_sides(spec, model, parts, candidate, found, classes, taught))
    needs_full = "lrs" in spec.metrics and spec.full_data.accuracy is None
    full = full_tasks(spec, parts, model, classes) if needs_full else []
    tasks = [*full]
    for scored in wanted:
        for side in scored.sides.values():
            tasks += [task for row in side.tasks for task in row]
    curves = iter(runner.run_all(tasks))
    full_curves = [next(curves) for _ in full]
    for scored in wanted:
        for side in scored.sides.values():
            side.curves = [[next(curves) for _ in row] for row in side.tasks]
    accuracy = None
    if needs_full:
        accuracy = plan.full_accuracy(spec, full_curves, plan.OFFICIAL_INTERVAL)
    elif spec.full_data.accuracy is not None:
        accuracy = np.full(spec.runs, spec.full_data.accuracy)
    for scored in wanted:
        _score(spec, scored, accuracy)
    return Compared(model, wanted, accuracy, full_curves)


def _sides(
    spec: Spec,
    model: str,
    parts: Parts,
    candidate: Candidate,
    loaded: Loaded,
    classes: int,
    taught: Teachers,
) -> Scored:
    train = plan.train_settings(spec, candidate)
    kind = candidate.labels.kind
    sides: dict[tuple[Variant, str], Side] = {}
    bare = digested(plan.without_targets(loaded.data))
    own = digested(loaded.data)
    against_random = bool({"lrs", "ars"} & set(spec.metrics))
    for variant in plan.variants(spec, candidate, train):
        recipe = plan.recipe(spec, train, variant, kind != "hard", classes)
        helpers = taught if kind == "soft_M" and variant != "hard" else Teachers()
        data = bare if variant == "hard" else own
        sides[(variant, "candidate")] = plan.make_side(
            spec, model, lambda _, data=data: data, recipe,  # type: ignore[misc]
            plan.rates_of(spec, variant, candidate), parts.evaluated, "candidate", classes, helpers,
        )  # fmt: skip
        if variant != "hard" and against_random:
            labels = taught if kind == "soft_S" else Teachers()
            sides[(variant, "random")] = plan.make_side(
                spec, model, lambda run, labels=labels: _subset(spec, parts, run, labels),  # type: ignore[misc]
                recipe, plan.rates_of(spec, variant, None), parts.evaluated, "random", classes,
                helpers,
            )  # fmt: skip
    return Scored(candidate, train, sides, {})


def _subset(spec: Spec, parts: Parts, run: int, labels: Teachers) -> Labelled:
    """Random subset i, the same for all candidates and models of a data set, ipc and seed."""
    known = parts.subsets.get((run, labels.digest))
    if known is None:
        seed = derived_seed("subset", parts.full.digest, spec.ipc, spec.seed, run)
        rows = torch.from_numpy(draw_subset(parts.train.labels.numpy(), spec.ipc, seed))
        found = Examples(parts.train.images[rows], parts.train.labels[rows])
        if labels.networks:
            found.targets = teachers.soft_targets(labels, found.images)
        known = parts.subsets[(run, labels.digest)] = digested(found)
    return known


def _score(spec: Spec, scored: Scored, full: FloatArray | None) -> None:
    hard_labels = scored.candidate.labels.kind == "hard"
    short = plan.OFFICIAL_INTERVAL if hard_labels else plan.OFFICIAL_LONG_INTERVAL
    for name, side in scored.sides.items():
        interval = plan.OFFICIAL_INTERVAL if name[0] == "hard" else short
        scored.choices[name] = plan.choose(spec, side, interval)
    if full is not None and "lrs" in spec.metrics:
        found = scores.label_robust(
            full, scored.accuracy("hard"), scored.accuracy("own"),
            scored.accuracy("own", "random"), spec.lrs_lambda,
        )  # fmt: skip
        scored.hlr, scored.ior, scored.lrs = found.hlr, found.ior, found.lrs
    if "ars" in spec.metrics:
        long = {
            name: plan.choose(spec, side, plan.OFFICIAL_LONG_INTERVAL).accuracy
            for name, side in scored.sides.items()
        }
        own, random = long[("own", "candidate")], long[("own", "random")]
        own_bare = long.get(("bare", "candidate"), own)
        random_bare = long.get(("bare", "random"), random)
        scored.gain_augmented, scored.gain_bare, scored.ars = scores.augmentation_robust(
            own, random, own_bare, random_bare, spec.ars_lambda
        )
    if scored.ior is None and ("own", "random") in scored.choices:
        scored.ior = scored.accuracy("own") - scored.accuracy("own", "random")
