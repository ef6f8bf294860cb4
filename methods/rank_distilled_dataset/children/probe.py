"""Tries the engines for a few steps: what each needs, and whether it does the same."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from pydantic import TypeAdapter
from torch import Tensor

from methods.context import RunContext
from methods.errors import JobError
from methods.rank_distilled_dataset.children.setup import device_of
from methods.rank_distilled_dataset.children.spec import Probe, Probed, ProbeResult
from methods.rank_distilled_dataset.data.examples import Examples
from methods.rank_distilled_dataset.networks.networks import build
from methods.rank_distilled_dataset.train_settings import ENGINES, SIDE_BY_SIDE, EngineName
from methods.rank_distilled_dataset.training.engines import train_all
from methods.rank_distilled_dataset.training.session import Recipe, Session, one_thread

_RECIPE = TypeAdapter(Recipe)
_STEPS = 8


def run(spec: Probe, ctx: RunContext) -> ProbeResult:
    """Try all engines that the device has; see `Probed`."""
    found: dict[EngineName, Probed] = {}
    engines = [name for name in ENGINES if name != "graph" or spec.device == "gpu"]
    with one_thread():
        trial = _Trial(spec, ctx.check)
        wanted = trial.weights("sequential", _STEPS)
        for place, name in enumerate(engines):
            ctx.progress("probing", place, len(engines), "engines")
            found[name] = trial.of(name, wanted)
    return ProbeResult(found=found)


class _Trial:
    """Trainings on one batch of noise."""

    def __init__(self, spec: Probe, check: Callable[[], None]) -> None:
        self._spec, self._check = spec, check
        self._device = device_of(spec.device)
        self._recipe = replace(
            _RECIPE.validate_python({"epochs": 1, "lr": 0.01, **spec.recipe}),
            evaluate=(),
            give_up=None,
        )

    def of(self, name: EngineName, wanted: Tensor) -> Probed:
        """What there is to know of an engine."""
        width = min(SIDE_BY_SIDE[name], self._spec.side_by_side)
        try:
            began = time.perf_counter()
            found = self.weights(name, _STEPS)
            first = time.perf_counter() - began
            short, long = (self._seconds(name, steps, width) for steps in (1, 1 + _STEPS))
        except JobError:
            raise
        except Exception as error:  # noqa: BLE001 - of a compiler or driver: another engine does it
            return Probed(problem=f"{type(error).__name__}: {error}"[:300])
        step = max(long - short, 1e-9) / _STEPS
        differs = float((found - wanted).norm() / wanted.norm())
        return Probed(start=max(0.0, first - step * _STEPS), step=step / width, differs=differs)

    def weights(self, name: EngineName, steps: int) -> Tensor:
        """All weights after so many steps of two trainings, float64."""
        sessions = self._train(name, steps, 2)
        flat = [p.detach().reshape(-1) for s in sessions for p in s.network.parameters()]
        return torch.cat(flat).double()

    def _seconds(self, name: EngineName, steps: int, width: int) -> float:
        spent = []
        for _ in range(2):
            began = time.perf_counter()
            self._train(name, steps, width)
            spent.append(time.perf_counter() - began)
        return min(spent)

    def _train(self, name: EngineName, steps: int, width: int) -> list[Session]:
        sessions: list[Session] = []
        makers = [partial(self._make, sessions, steps, seed) for seed in range(width)]
        train_all(name, makers, {}, self._check, lambda place, curve: None)
        if self._device.type == "cuda":
            torch.cuda.synchronize()
        return sessions

    def _make(self, sessions: list[Session], steps: int, seed: int, kind: type[Session]) -> Session:
        spec = self._spec
        generator = torch.Generator().manual_seed(seed)
        images = torch.randn(spec.images, *spec.shape, generator=generator)
        soft = torch.randn(spec.images, spec.classes, generator=generator)
        data = Examples(images, torch.arange(spec.images) % spec.classes, soft).to(self._device)
        network = build(spec.model, spec.shape, spec.classes, seed).to(self._device)
        sessions.append(kind(network, data, replace(self._recipe, epochs=steps), seed))
        return sessions[-1]
