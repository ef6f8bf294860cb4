"""Everything one model says about the candidates: trainings laid out, and scored when done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace

import numpy as np

from methods.rank_distilled_dataset.children.bundles import Sizes, TrainingKey
from methods.rank_distilled_dataset.children.spec import (
    RealPart,
    Soft,
    Teachers,
    TeacherTraining,
    Trainings,
)
from methods.rank_distilled_dataset.protocol import plan, scores
from methods.rank_distilled_dataset.protocol.plan import Arm, Choice, Variant
from methods.rank_distilled_dataset.spec import Candidate, Spec
from methods.rank_distilled_dataset.train_settings import Train, TrainChange
from methods.rank_distilled_dataset.training.session import Curve
from methods.typing import FloatArray


@dataclass
class Scored:
    """A candidate under one model; arrays over the runs, [R]."""

    candidate: Candidate
    train: Train
    sides: dict[tuple[Variant, str], Arm]
    choices: dict[tuple[Variant, str], Choice] = field(default_factory=dict)
    lrs: FloatArray | None = None
    hlr: FloatArray | None = None
    ior: FloatArray | None = None
    ars: FloatArray | None = None
    gain_augmented: FloatArray | None = None
    gain_bare: FloatArray | None = None

    @property
    def wanted(self) -> list[TrainingKey]:
        """All its trainings, the random baselines included."""
        return [one for side in self.sides.values() for row in side.wanted for one in row]

    def accuracy(self, variant: Variant, who: str = "candidate") -> FloatArray:
        """Accuracies of a variant; one that is no training of its own is `own`."""
        choice = self.choices.get((variant, who)) or self.choices[("own", who)]
        return choice.accuracy

    def score(self, metric: str) -> FloatArray:
        """What ranks: LRS, ARS or the accuracy in the own setting, [R]; high is good."""
        found = {"lrs": self.lrs, "ars": self.ars}.get(metric)
        return self.accuracy("own") if found is None else found


@dataclass
class ModelComparison:
    """One model's answer.

    Attributes:
        full_wanted: full-data trainings, one a run; none where the accuracy is known or not needed.
        full, full_curves: what came of them.
    """

    model: str
    scored: list[Scored]
    full_wanted: list[TrainingKey]
    full: FloatArray | None = None
    full_curves: list[Curve] = field(default_factory=list)

    @property
    def wanted(self) -> list[TrainingKey]:
        """All trainings."""
        return [*self.full_wanted, *(one for scored in self.scored for one in scored.wanted)]


def real_part(spec: Spec) -> RealPart:
    """What is held out, by the protocol; the official rule chooses on the test set."""
    held_out = None if spec.protocol == "official" else spec.held_out
    return RealPart(dataset=spec.dataset, held_out=held_out)


def teachers_of(spec: Spec) -> Teachers | None:
    """The teachers that candidates with soft labels need."""
    if spec.teacher is None or all(c.labels.kind == "hard" for c in spec.candidates):
        return None
    recipe = asdict(replace(plan.full_recipe(spec), evaluate=()))
    given = spec.teacher
    training = [
        TeacherTraining(
            device=spec.device,
            real=real_part(spec),
            model=model,
            recipe=recipe,
            seed=spec.seed,
            place=place,
        )
        for place, model in enumerate(given.models)
    ]
    return Teachers(
        models=given.models, weights=given.weights, training=[] if given.weights else training
    )


def lay_out(spec: Spec, model: str, sizes: Sizes, taught: Teachers | None) -> ModelComparison:
    """All trainings of one model."""
    real = real_part(spec)
    full: list[TrainingKey] = []
    if "lrs" in spec.metrics and spec.full_data.accuracy is None:
        common = Trainings(
            device=spec.device,
            real=real,
            source="full",
            model=model,
            recipe={},
            seed=spec.seed,
            todo=[],
        )
        tested = replace(
            sizes, evaluated={n: v for n, v in sizes.evaluated.items() if n != "held_out"}
        )
        recipe = plan.full_recipe(spec)
        full = plan.make_side(spec, common, recipe, [spec.full_data.lr], tested).wanted[0]
    sides = [_sides(spec, model, real, candidate, sizes, taught) for candidate in spec.candidates]
    return ModelComparison(model, sides, full)


def _sides(
    spec: Spec,
    model: str,
    real: RealPart,
    candidate: Candidate,
    sizes: Sizes,
    taught: Teachers | None,
) -> Scored:
    train = plan.train_settings(spec, candidate)
    kind = candidate.labels.kind
    sides: dict[tuple[Variant, str], Arm] = {}
    against_random = bool({"lrs", "ars"} & set(spec.metrics))
    # What it is called, and what is said in the recipe already, does not belong to the training.
    bare = {"name": "candidate", "syn_lr": None, "preset": None, "train": TrainChange()}
    images = candidate.model_copy(update=bare)
    for variant in plan.variants(spec, candidate, train):
        recipe = plan.recipe(spec, train, variant, kind != "hard", sizes.classes)
        labelled = variant != "hard" and kind == "soft_M"
        common = Trainings(
            device=spec.device,
            real=real,
            source="candidate",
            ipc=spec.ipc,
            candidate=images,
            hard=variant == "hard",
            teachers=taught if labelled else None,
            soft="batches" if labelled else None,
            model=model,
            recipe={},
            seed=spec.seed,
            todo=[],
        )
        rates = plan.rates_of(spec, variant, candidate)
        sides[(variant, "candidate")] = plan.make_side(spec, common, recipe, rates, sizes)
        if variant != "hard" and against_random:
            soft: dict[str, Soft | None] = {"hard": None, "soft_S": "stored", "soft_M": "batches"}
            change = {
                "source": "random",
                "candidate": None,
                "soft": soft[kind],
                "teachers": taught if soft[kind] else None,
            }
            rates = plan.rates_of(spec, variant, None)
            sides[(variant, "random")] = plan.make_side(
                spec, common.model_copy(update=change), recipe, rates, sizes
            )
    return Scored(candidate, train, sides)


def score(
    spec: Spec, compared: ModelComparison, curves: Mapping[TrainingKey, Curve]
) -> ModelComparison:
    """What the curves say about those candidates whose trainings are all done."""
    full_curves = [curves[one] for one in compared.full_wanted if one in curves]
    accuracy = None
    if spec.full_data.accuracy is not None:
        accuracy = np.full(spec.runs, spec.full_data.accuracy)
    elif compared.full_wanted and len(full_curves) == len(compared.full_wanted):
        accuracy = plan.full_accuracy(spec, full_curves, plan.OFFICIAL_INTERVAL)
    elif compared.full_wanted:
        return ModelComparison(compared.model, [], compared.full_wanted, None, full_curves)
    done = []
    for laid_out in compared.scored:
        if all(one in curves for one in laid_out.wanted):
            sides = {
                name: replace(side, curves=[[curves[one] for one in row] for row in side.wanted])
                for name, side in laid_out.sides.items()
            }
            scored = Scored(laid_out.candidate, laid_out.train, sides)
            _score(spec, scored, accuracy)
            done.append(scored)
    return ModelComparison(compared.model, done, compared.full_wanted, accuracy, full_curves)


def _score(spec: Spec, scored: Scored, full: FloatArray | None) -> None:
    hard_labels = scored.candidate.labels.kind == "hard"
    short = plan.OFFICIAL_INTERVAL if hard_labels else plan.OFFICIAL_LONG_INTERVAL
    for name, side in scored.sides.items():
        interval = plan.OFFICIAL_INTERVAL if name[0] == "hard" else short
        scored.choices[name] = plan.choose(spec, side, interval)
    if full is not None and "lrs" in spec.metrics:
        found = scores.label_robust(
            full,
            scored.accuracy("hard"),
            scored.accuracy("own"),
            scored.accuracy("own", "random"),
            spec.lrs_lambda,
        )
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
