"""Which trainings a job consists of, and what their curves say by its protocol."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Literal

import numpy as np

from methods.rank_distilled_dataset.children.bundles import Sizes, TrainingKey
from methods.rank_distilled_dataset.children.spec import Trainings
from methods.rank_distilled_dataset.data.augment import Augment
from methods.rank_distilled_dataset.presets import PRESETS, settings
from methods.rank_distilled_dataset.spec import Candidate, FullData, Spec
from methods.rank_distilled_dataset.train_settings import Train
from methods.rank_distilled_dataset.training.session import Curve, Recipe, late
from methods.typing import FloatArray

#: `own`: the candidate's setting; `hard`: hard labels; `bare`: own labels, no augmentation.
Variant = Literal["own", "hard", "bare"]
#: The released package evaluates every tenth epoch, and every twentieth for soft labels and ARS.
OFFICIAL_INTERVAL, OFFICIAL_LONG_INTERVAL = 10, 20
#: A learning rate below so many times chance at the first evaluation is dropped by `fast`.
CHANCE_FACTOR = 1.5
_POINTS = 4


@dataclass
class Arm:
    """All trainings of one thing at one setting: by learning rate, then by run.

    Attributes:
        rates: learning rates tried.
        wanted: [rate][run]. curves: the same, once they are done.
    """

    rates: list[float]
    wanted: list[list[TrainingKey]] = field(default_factory=list)
    curves: list[list[Curve]] = field(default_factory=list)


@dataclass
class Choice:
    """What a side achieved.

    Attributes:
        accuracy: of each run, [R].
        rates: the learning rate of each run.
        by_rate: mean accuracy over the runs by learning rate.
    """

    accuracy: FloatArray
    rates: list[float]
    by_rate: dict[float, float]


def train_settings(spec: Spec, candidate: Candidate) -> Train:
    """The training settings of a candidate: its own over its preset's over the job's."""
    merged = spec.train.model_dump()
    merged.update(settings(candidate.preset, spec.dataset.name, spec.ipc))
    merged.update(candidate.train.model_dump(exclude_none=True))
    return Train.model_validate(merged)


def given_rate(candidate: Candidate) -> float | None:
    """The learning rate that came with a candidate or its preset."""
    preset = PRESETS.get(candidate.preset or "")
    return candidate.syn_lr or (preset.syn_lr if preset else None)


def variants(spec: Spec, candidate: Candidate, train: Train) -> list[Variant]:
    """The settings that a candidate has to be trained in."""
    found: list[Variant] = ["own"]
    if candidate.labels.kind != "hard" and "lrs" in spec.metrics:
        found.append("hard")
    if "ars" in spec.metrics and train.augmentation.name != "none":
        found.append("bare")
    return found


def evaluations(spec: Spec, epochs: int) -> tuple[int, ...]:
    """After which epochs networks are tested, by the protocol."""
    if spec.protocol == "official":
        return tuple(range(OFFICIAL_INTERVAL, epochs + 1, OFFICIAL_INTERVAL))
    if spec.protocol == "fast":
        return (-(-epochs // 3),)
    return tuple(-(-epochs * place // _POINTS) for place in range(1, _POINTS))


def recipe(spec: Spec, train: Train, variant: Variant, soft: bool, classes: int) -> Recipe:
    """The recipe of a variant; its learning rate is filled in later."""
    augmented = variant == "own" or (variant == "hard" and train.augment_hard)
    change = train.augmentation
    loss = train.loss if soft and variant != "hard" else "ce"
    options: dict[str, float | bool] = {}
    if loss in ("kl", "sce"):
        options = {"temperature": train.temperature, "scale": train.scale_loss}
    elif loss == "mse_gt":
        options = {"mse_weight": train.mse_weight, "ce_weight": train.ce_weight}
    return Recipe(
        epochs=train.epochs,
        lr=0.0,
        batch_size=train.batch_size,
        optimiser=train.optimiser,
        schedule=train.schedule,
        step_size=train.step_size or max(train.epochs // 2, 1),
        weight_decay=train.weight_decay,
        momentum=train.momentum,
        augment=Augment(change.name, dict(change.strengths), change.mode, change.beta)  # type: ignore[arg-type]
        if augmented
        else Augment(),
        loss=loss,
        loss_options=options,
        evaluate=evaluations(spec, train.epochs),
        give_up=CHANCE_FACTOR / classes if spec.protocol == "fast" else None,
    )


def full_recipe(spec: Spec) -> Recipe:
    """How networks are trained on the real training set: hard labels, no augmentation."""
    given: FullData = spec.full_data
    epochs = given.epochs or spec.train.epochs
    return Recipe(
        epochs=epochs,
        lr=given.lr,
        batch_size=given.batch_size,
        optimiser=given.optimiser,
        schedule=given.schedule,
        step_size=given.step_size or max(epochs // 2, 1),
        weight_decay=given.weight_decay,
        momentum=given.momentum,
        evaluate=evaluations(spec, epochs),
    )


def rates_of(spec: Spec, variant: Variant, candidate: Candidate | None) -> list[float]:
    """The learning rates a side tries; `candidate` is None for random subsets."""
    given = given_rate(candidate) if candidate is not None else None
    if spec.protocol == "official" and given is not None and variant != "hard":
        return [given]
    return list(spec.lr_grid)


def make_side(spec: Spec, common: Trainings, base: Recipe, rates: list[float], sizes: Sizes) -> Arm:
    """The trainings of a side.

    Args:
        common: all but the recipe and what there is to do.
    """
    # One learning rate is never dropped, or a hopeless set would have no result at all.
    kept = rates[len(rates) // 2]
    of = common.model_copy(update={"recipe": asdict(base)})
    text, seconds = of.model_dump_json(), sizes.seconds(of, base, late(sizes.evaluated))
    stops = [base.give_up is not None and rate != kept for rate in rates]
    return Arm(
        rates,
        [
            [TrainingKey(text, rate, run, prunable, seconds) for run in range(spec.runs)]
            for rate, prunable in zip(rates, stops, strict=True)
        ],
    )


def choose(spec: Spec, side: Arm, interval: int = OFFICIAL_INTERVAL) -> Choice:
    """The accuracy of each run, and at which learning rate, by the protocol.

    `official`: the best evaluation of the best learning rate, on the test set, run by run.
    Otherwise: the last epoch at the learning rate whose mean accuracy on the held-out images is
    highest; of equal ones the lowest.
    """
    if spec.protocol == "official":
        table = np.array([[_best(c, interval) for c in curves] for curves in side.curves])
        places = table.argmax(axis=0)
        found = table[places, np.arange(table.shape[1])]
    else:
        table = np.array([[c.accuracy["test"][-1] for c in curves] for curves in side.curves])
        held = np.array([[c.accuracy["held_out"][-1] for c in curves] for curves in side.curves])
        places = np.full(table.shape[1], int(held.mean(axis=1).argmax()))
        found = table[places[0]]
    means = dict(zip(side.rates, table.mean(axis=1).tolist(), strict=True))
    return Choice(found, [side.rates[place] for place in places.tolist()], means)


def full_accuracy(spec: Spec, curves: list[Curve], interval: int) -> FloatArray:
    """Of the real training set, run by run: by the same rule on the same epochs."""
    if spec.protocol == "official":
        return np.array([_best(curve, interval) for curve in curves])
    return np.array([curve.accuracy["test"][-1] for curve in curves])


def _best(curve: Curve, interval: int) -> float:
    """The best test accuracy among every `interval`-th epoch; the last one where there is none."""
    pairs = zip(curve.epochs, curve.accuracy["test"], strict=True)
    found = [accuracy for epoch, accuracy in pairs if epoch % interval == 0]
    return max(found) if found else curve.accuracy["test"][-1]
