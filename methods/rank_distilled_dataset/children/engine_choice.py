"""Which engine carries out which trainings."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

from methods.context import RunContext
from methods.rank_distilled_dataset.children.bundles import Sizes, TrainingKey
from methods.rank_distilled_dataset.children.spec import (
    PROBE,
    Probe,
    Probed,
    ProbeResult,
    Trainings,
)
from methods.rank_distilled_dataset.train_settings import SIDE_BY_SIDE, EngineName

#: Estimated seconds of work from which on a probe pays: on a CPU it waits for a compiler.
PROBE_FROM = {"cpu": 900.0, "gpu": 60.0}
#: Weights after a few steps may differ by so much; an engine that is further off is wrong.
AGREES = 1e-2


class Chooser:
    """Chooses for whole groups. A probe is a part of the job: made once for all jobs of a tenant,
    so that the next one chooses alike and finds the same trainings.

    Args:
        wanted: an engine for all, or `auto`.
    """

    def __init__(self, wanted: Literal["auto"] | EngineName, sizes: Sizes, ctx: RunContext) -> None:
        self._wanted, self._sizes, self._ctx = wanted, sizes, ctx

    def __call__(self, groups: Mapping[str, Sequence[TrainingKey]]) -> dict[str, EngineName]:
        """An engine for each group of trainings that have all but rate and run in common."""
        if self._wanted != "auto":
            return dict.fromkeys(groups, self._wanted)
        chosen: dict[str, EngineName] = dict.fromkeys(groups, "sequential")
        asked: dict[str, Probe] = {}
        for of, group in groups.items():
            common = Trainings.model_validate_json(of)
            # Teachers label each batch: they cost what the probe does not see.
            long = sum(one.seconds for one in group) >= PROBE_FROM[common.device]
            if long and common.soft != "batches":
                asked[of] = self._probe(common, len(group))
        if not asked:
            return chosen
        different = {probe.model_dump_json(): probe for probe in asked.values()}
        found = dict(zip(different, self._ask(list(different.values())), strict=True))
        for of, probe in asked.items():
            steps = len(groups[of]) * self._steps(Trainings.model_validate_json(of))
            chosen[of] = fastest(found[probe.model_dump_json()].found, steps)
        return chosen

    def _ask(self, probes: list[Probe]) -> list[ProbeResult]:
        found: dict[int, ProbeResult] = {}
        for child in self._ctx.fan_out(PROBE.name, probes):
            found[child.place] = ProbeResult.model_validate(child.result)
            self._ctx.progress("probing", len(found), len(probes), "probes")
        return [found[place] for place in range(len(probes))]

    def _images(self, common: Trainings) -> int:
        return self._sizes.full if common.ipc is None else common.ipc * self._sizes.classes

    def _probe(self, common: Trainings, count: int) -> Probe:
        whole = {"epochs", "lr", "evaluate", "give_up", "late", "step_size"}
        recipe = {name: v for name, v in common.recipe.items() if name not in whole}
        return Probe(
            device=common.device,
            model=common.model,
            shape=self._sizes.shape,
            classes=self._sizes.classes,
            images=min(self._images(common), int(recipe["batch_size"])),
            recipe={**recipe, "step_size": 1000},
            side_by_side=min(count, max(SIDE_BY_SIDE.values())),
        )

    def _steps(self, common: Trainings) -> int:
        per_epoch = math.ceil(self._images(common) / int(common.recipe["batch_size"]))
        return int(common.recipe["epochs"]) * per_epoch


def fastest(found: Mapping[EngineName, Probed], steps: float) -> EngineName:
    """The engine that ends first with so many steps to do; of equal ones the first."""
    ready = {
        name: one.start + one.step * steps
        for name, one in found.items()
        if one.problem is None and one.differs <= AGREES
    }
    return min(ready, key=lambda name: ready[name])
