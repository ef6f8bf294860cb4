"""Trainings by content: each is named by a digest of all that determines it, and done once."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from methods.context import RunContext
from methods.rank_distilled_dataset.networks import build
from methods.rank_distilled_dataset.training import Curve, Examples, Recipe, train

#: Raised whenever the same task may give another curve.
ENGINE = 1


class Curves(Protocol):
    """Where curves are kept beyond an attempt. A service-wide store has these two methods too."""

    def restore(self, key: str) -> Any | None:
        """The JSON value of a key, or None."""

    def checkpoint(self, key: str, value: Any) -> None:
        """Keep a JSON value."""


@dataclass
class Labelled:
    """Examples with the digest of their content."""

    examples: Examples
    digest: str


def digested(examples: Examples) -> Labelled:
    """Examples with a digest of images, labels and soft targets."""
    digest = sha256()
    for tensor in (examples.images, examples.labels, examples.targets):
        if tensor is not None:
            array = np.ascontiguousarray(tensor.cpu().numpy())
            digest.update(f"{array.dtype}{array.shape}".encode() + array.data)
    return Labelled(examples, digest.hexdigest())


@dataclass(frozen=True)
class Teachers:
    """Networks that label batches, with a digest of their weights."""

    networks: tuple[nn.Module, ...] = ()
    digest: str = ""


@dataclass
class Task:
    """One training to do.

    Attributes:
        model: network name. classes: its outputs.
        data: what it is trained on.
        evaluated: sets by name; the first may make it give up.
        seed: of the initial weights, the order and the augmentation.
        role: `full`, `random`, or `candidate`, for the order of work and the report.
    """

    model: str
    classes: int
    data: Labelled
    recipe: Recipe
    evaluated: dict[str, Labelled]
    seed: int
    role: str
    teachers: Teachers = field(default_factory=Teachers)

    def key(self, device: str) -> str:
        """The digest of all that determines the curve."""
        content = {
            "engine": ENGINE,
            "device": device,
            "model": self.model,
            "classes": self.classes,
            "data": self.data.digest,
            "recipe": asdict(self.recipe),
            "evaluated": {name: found.digest for name, found in self.evaluated.items()},
            "seed": self.seed,
            "teachers": self.teachers.digest,
        }
        return sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    @property
    def cost(self) -> int:
        """Image passes, to do the longest first: three an image trained on, one evaluated."""
        recipe = self.recipe
        tested = sum(len(found.examples.labels) for found in self.evaluated.values())
        points = len({*recipe.evaluate, recipe.epochs})
        return 3 * recipe.epochs * len(self.data.examples.labels) + points * tested


def derived_seed(*parts: object) -> int:
    """A seed below 2^62 from the names of what it is for."""
    return int.from_bytes(sha256(repr(parts).encode()).digest()[:8], "big") >> 2


def device_class() -> str:
    """`cpu`, or the name of the GPU: its arithmetic is part of what determines a curve."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"


class Runner:
    """Does tasks, each key once in this attempt and once in this job.

    Attributes:
        trained, restored: keys by where their curve came from.
        asked: how often each key was asked for.
    """

    def __init__(self, ctx: RunContext, store: Curves | None = None) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        if self.device.type == "cuda":
            # The same seed has to give the same curve.
            torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
        self._class = device_class()
        self._ctx, self._store = ctx, store or ctx
        self._curves: dict[str, Curve] = {}
        self.trained: set[str] = set()
        self.restored: set[str] = set()
        self.asked: dict[str, int] = {}

    def key(self, task: Task) -> str:
        """See `Task.key`."""
        return task.key(self._class)

    def run_all(self, tasks: list[Task]) -> list[Curve]:
        """The curves of tasks, in their order; the longest trainings are done first."""
        keys = [self.key(task) for task in tasks]
        by_key = dict(zip(keys, tasks, strict=True))
        order = sorted(by_key, key=lambda key: -by_key[key].cost)
        for done, key in enumerate(order):
            self._ctx.progress("training", done, len(order), "trainings")
            self.run(by_key[key], key)
        self._ctx.progress("training", len(order), len(order), "trainings")
        for key in keys:
            self.asked[key] = self.asked.get(key, 0) + 1
        return [self._curves[key] for key in keys]

    def run(self, task: Task, key: str) -> Curve:
        """One curve: remembered, restored, or trained and kept."""
        if key in self._curves:
            return self._curves[key]
        kept = self._store.restore(f"run/{key}")
        if kept is None:
            curve = self._train(task)
            self._store.checkpoint(f"run/{key}", asdict(curve))
            self.trained.add(key)
        else:
            curve = Curve(**kept)
            self.restored.add(key)
        self._curves[key] = curve
        return curve

    def network(self, task: Task) -> nn.Module:
        """A network with the initial weights of a task."""
        shape = tuple(task.data.examples.images.shape[1:])
        seed = derived_seed("init", task.model, task.seed)
        return build(task.model, shape, task.classes, seed).to(self.device)

    def _train(self, task: Task, network: nn.Module | None = None) -> Curve:
        evaluated = {n: found.examples.to(self.device) for n, found in task.evaluated.items()}
        return train(
            self.network(task) if network is None else network,
            task.data.examples.to(self.device),
            task.recipe,
            derived_seed("order", task.seed),
            evaluated,
            task.teachers.networks,
            self._ctx.check,
        )
