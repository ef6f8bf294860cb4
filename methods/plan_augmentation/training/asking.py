"""Has the arms trained, the plain one first."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from methods.jobtype import InputRef
from methods.parts import Parts
from methods.plan_augmentation.child_jobs import ARM_PART, ArmMade, ArmPart
from methods.plan_augmentation.judge import Judge
from methods.plan_augmentation.making.asking import Images
from methods.plan_augmentation.outcome.verdict import Trainings
from methods.plan_augmentation.planning.counts import steps_of
from methods.plan_augmentation.planning.plan import Couple, couples
from methods.plan_augmentation.settings import ArmName, ClassifierRecipe
from methods.plan_augmentation.spec import Spec
from methods.typing import BoolArray, IntArray

#: Rows with copies, or new images that are added.
Set = tuple[list[int] | None, list[Couple]]


class Arms:
    """Trainings of the arms.

    Attributes:
        found: by arm, in the order of the request. judge: the first plain training.
    """

    def __init__(self, spec: Spec, rows: int, parts: Parts) -> None:
        self._spec, self._rows, self._parts = spec, rows, parts
        self._trained: dict[ArmName, Trainings] = {}
        self.judge: Judge | None = None

    @property
    def found(self) -> dict[ArmName, Trainings]:
        asked = self._spec.evaluate
        return {} if asked is None else {name: self._trained[name] for name in asked.arms}

    def plain(self) -> BoolArray:
        """Train on the data as they are.

        Returns:
            (N,) which rows the first training gets wrong in the end.
        """
        made = self._train({"plain": (None, [])}, [])["plain"]
        wrong = np.zeros(self._rows, dtype=np.bool_)
        wrong[made[0].wrong] = True
        return wrong

    def others(self, wanted: Mapping[str, IntArray], slow: BoolArray, images: Images) -> None:
        """Train on what the plan makes of the data, and on its controls.

        Args:
            wanted: (N,) new images of each row, by arm. slow: (N,) the sources of the plan.
        """
        spec = self._spec
        assert spec.evaluate is not None, "called where arms are asked for"
        sets: dict[ArmName, Set] = {}
        for name in spec.evaluate.arms:
            if name == "upsample-2":
                sets[name] = ((1 + slow).tolist(), [])
            elif name != "plain" and spec.mode == "generate":
                sets[name] = (None, images.there(couples(wanted[name])))
            elif name != "plain":
                sets[name] = ((1 + wanted[name]).tolist(), [])
        self._train(sets, images.archives)

    def _train(
        self, sets: dict[ArmName, Set], archives: list[InputRef]
    ) -> dict[ArmName, list[ArmMade]]:
        spec, asked = self._spec, self._spec.evaluate
        assert asked is not None, "called where arms are asked for"
        assert spec.dataset is not None, "the spec was checked"
        recipe = {name: getattr(asked, name) for name in ClassifierRecipe.model_fields}
        parts, owners, steps = [], [], {}
        for name, (repeats, use) in sets.items():
            count = (self._rows if repeats is None else sum(repeats)) + len(use)
            own = self._rows if asked.budget == "equal-steps" else count
            steps[name] = steps_of(asked.epochs, own, asked.batch_size)
            for number in range(asked.runs):
                owners.append(name)
                parts.append(
                    ArmPart(
                        **recipe,
                        dataset=spec.dataset,
                        repeats=repeats,
                        images=archives if use else [],
                        use=use,
                        steps=steps[name],
                        run=number,
                        seed=spec.seed,
                        keep_weights=name == "plain" and number == 0,
                        device=spec.device,
                    )
                )
        by_arm: dict[ArmName, list[ArmMade]] = {name: [] for name in sets}
        children = self._parts.all(ARM_PART, parts, "training arms", "trainings")
        for child, name in zip(children, owners, strict=True):
            made = ArmMade.model_validate(child.result)
            by_arm[name].append(made)
            if made.weights is not None:
                self.judge = Judge(InputRef(made.weights), asked.model, made.accuracy)
        for name, own_made in by_arm.items():
            self._trained[name] = Trainings(
                own_made[0].images, steps[name], [one.accuracy for one in own_made]
            )
        return by_arm
