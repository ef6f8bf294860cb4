"""How trainings are carried out: one behind the other, compiled, replayed, or side by side.

All engines do the same arithmetic on the same images in the same order. `sequential` and `graph`
agree to the last bit on one device; `compiled` and `stacked` round differently, 1e-6 of a weight a
step, which a long training amplifies to a test image or two: so the engine is part of what a
training is kept under.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from methods.errors import JobError
from methods.rank_distilled_dataset.networks import mean_logits
from methods.rank_distilled_dataset.optimisers import make_optimiser, rate
from methods.rank_distilled_dataset.training import (
    Check,
    Curve,
    Examples,
    Forward,
    Prepare,
    Recipe,
    accuracy,
    as_it_is,
    batches,
    generators,
    loss_of,
    measure,
    train,
)

EngineName = Literal["sequential", "compiled", "graph", "stacked"]
ENGINES: tuple[EngineName, ...] = get_args(EngineName)


@dataclass
class Training:
    """A network with its initial weights, what it is trained on and how.

    Attributes:
        seed: of sample order and augmentation.
    """

    network: nn.Module
    data: Examples
    recipe: Recipe
    seed: int


def train_all(
    engine: EngineName,
    trainings: Sequence[Callable[[], Training]],
    evaluated: Mapping[str, Examples],
    teachers: Sequence[nn.Module],
    check: Check,
    done: Callable[[int, Curve], None],
) -> None:
    """Carry out trainings whose recipes differ in learning rate and giving up alone.

    Args:
        trainings: made when it is their turn.
        done: told each curve with its place, as soon as it is there.

    Raises:
        JobError: the engine does not run on this device.
    """
    if engine == "stacked":
        todo = [make() for make in trainings]
        for place, curve in enumerate(train_stacked(todo, evaluated, teachers, check)):
            done(place, curve)
        return
    for place, make in enumerate(trainings):
        one = make()
        prepare = _PREPARE[engine]
        curve = train(
            one.network, one.data, one.recipe, one.seed, evaluated, teachers, check, prepare
        )
        done(place, curve)


def compiled(network: nn.Module, chunk: Tensor) -> Forward:
    """Fused by `torch.compile`; shapes are few, so each gets code of its own."""
    return torch.compile(network, dynamic=False)  # type: ignore[no-any-return]


class _Replayed:
    """The forward and backward pass of one shape as a CUDA graph: one launch instead of hundreds.

    Other shapes, and evaluation, go through the network itself, whose weights are the same.
    """

    def __init__(self, network: nn.Module, chunk: Tensor) -> None:
        self._network, self._shape = network, chunk.shape
        state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        wrapped = nn.Sequential(network).train()
        self._graph = torch.cuda.make_graphed_callables(wrapped, (torch.zeros_like(chunk),))
        # Its warm-up has gone through the batch norms.
        network.load_state_dict(state)

    def __call__(self, images: Tensor) -> Tensor:
        replays = self._network.training and images.shape == self._shape
        found: Tensor = self._graph(images) if replays else self._network(images)
        return found


def graphed(network: nn.Module, chunk: Tensor) -> Forward:
    """See `_Replayed`. Raises JobError without CUDA."""
    if chunk.device.type != "cuda":
        raise JobError("input_invalid", "The engine `graph` needs a GPU: say device `gpu`.")
    return _Replayed(network, chunk)


_PREPARE: dict[str, Prepare] = {"sequential": as_it_is, "compiled": compiled, "graph": graphed}


def train_stacked(
    todo: Sequence[Training],
    evaluated: Mapping[str, Examples],
    teachers: Sequence[nn.Module] = (),
    check: Check = lambda: None,
) -> list[Curve]:
    """Train networks of one architecture side by side, as one with grouped convolutions.

    Each has its own images, order, augmentation and learning rate; all have as many images.
    """
    started = time.process_time()
    recipe, epochs = todo[0].recipe, todo[0].recipe.epochs
    stack = _Stack(todo, teachers)
    curves = [Curve(accuracy={name: [] for name in evaluated}) for _ in todo]
    for epoch in range(epochs):
        stack.epoch(epoch, check)
        if epoch + 1 not in {*recipe.evaluate, epochs}:
            continue
        losses = stack.mean_losses()
        for place, curve in enumerate(curves):
            if curve.stopped:  # the others have not: it goes on beside them, unheeded
                continue
            network = stack.network(place)
            curve.epochs.append(epoch + 1)
            curve.loss.append(losses[place])
            measure(
                todo[place].recipe, evaluated, curve, lambda e, n=network: accuracy(n, e, check)
            )
    for curve in curves:
        curve.seconds = (time.process_time() - started) / len(curves)
    return curves


class _Stack:
    """The state of trainings that go side by side; every tensor has them as its first axis."""

    def __init__(self, todo: Sequence[Training], teachers: Sequence[nn.Module]) -> None:
        self._todo, self._teachers, self._recipe = todo, teachers, todo[0].recipe
        self._loss = loss_of(self._recipe)
        networks = [one.network.train() for one in todo]
        self._weights, self._buffers = stack_module_state(networks)
        self._shell = copy.deepcopy(networks[0])
        # Each network's own parameters are views into the stack, and its optimiser is its own.
        self._parts = [
            {name: nn.Parameter(tensor.detach()[k]) for name, tensor in self._weights.items()}
            for k in range(len(todo))
        ]
        self._optimisers = [
            make_optimiser(r.optimiser, part.values(), r.lr, r.weight_decay, r.momentum)
            for part, r in zip(self._parts, (one.recipe for one in todo), strict=True)
        ]
        self._generators = [generators(one.seed) for one in todo]
        self._total = torch.zeros(len(todo), device=todo[0].data.images.device)
        self._steps = 0

    def epoch(self, epoch: int, check: Check) -> None:
        """One pass over the data of each."""
        recipe = self._recipe
        factor = rate(recipe.schedule, epoch, recipe.epochs, recipe.step_size, recipe.gamma)
        for optimiser, one in zip(self._optimisers, self._todo, strict=True):
            for group in optimiser.param_groups:
                group["lr"] = one.recipe.lr * factor
        passes = [
            batches(one.data, recipe.batch_size, orders)
            for one, (orders, _) in zip(self._todo, self._generators, strict=True)
        ]
        for side_by_side in zip(*passes, strict=True):
            check()
            self._step(side_by_side)

    def _step(self, side_by_side: Sequence[Examples]) -> None:
        draws = [draws for _, draws in self._generators]
        images = [
            self._recipe.augment(batch.images, draw)
            for batch, draw in zip(side_by_side, draws, strict=True)
        ]
        forward = vmap(lambda w, b, x: functional_call(self._shell, (w, b), (x,)))
        found = forward(self._weights, self._buffers, torch.stack(images))
        losses = []
        for k, batch in enumerate(side_by_side):
            targets = batch.targets
            if self._teachers:
                targets = mean_logits(self._teachers, images[k])
            losses.append(self._loss(found[k], targets, batch.labels))
        together = torch.stack(losses)
        gradients = torch.autograd.grad(together.sum(), list(self._weights.values()))
        for k, (part, optimiser) in enumerate(zip(self._parts, self._optimisers, strict=True)):
            for parameter, gradient in zip(part.values(), gradients, strict=True):
                parameter.grad = gradient[k]
            optimiser.step()
        self._total += together.detach()
        self._steps += 1

    def mean_losses(self) -> list[float | None]:
        """Of each, the mean loss of the steps since the last call; None where it is not finite."""
        means = (self._total / self._steps).tolist()
        self._total, self._steps = torch.zeros_like(self._total), 0
        return [mean if abs(mean) < float("inf") else None for mean in means]

    def network(self, place: int) -> nn.Module:
        """One of the networks, with its weights of now."""
        network = self._todo[place].network
        state = {**self._weights, **self._buffers}
        network.load_state_dict({name: tensor.detach()[place] for name, tensor in state.items()})
        return network


@dataclass(frozen=True)
class Probed:
    """What a probe found of an engine.

    Attributes:
        start: seconds before its first step that it takes once in a process.
        step: seconds of a training step.
        differs: largest difference of a weight from the sequential engine's, by their norm.
        problem: why it is out of the question, or None.
    """

    start: float = 0.0
    step: float = 0.0
    differs: float = 0.0
    problem: str | None = None


#: Of the norm of a network's weights, after the steps of a probe.
AGREES = 1e-3
_STEPS = 6


def probe(
    engine: EngineName, make: Callable[[], Training], side_by_side: int, check: Check
) -> Probed:
    """Try an engine for a few steps, and whether it does what the sequential one does.

    Args:
        make: a training, always the same; its data are one batch.
    """
    wanted = make()
    few = replace(wanted.recipe, epochs=_STEPS, evaluate=())
    train(wanted.network, wanted.data, few, wanted.seed, check=check)

    def once(epochs: int) -> tuple[float, nn.Module]:
        made = [make() for _ in range(side_by_side if engine == "stacked" else 1)]
        recipe = replace(few, epochs=epochs)
        ready: list[Callable[[], Training]] = [
            lambda one=one: replace(one, recipe=recipe)  # type: ignore[misc]
            for one in made
        ]
        _await_device(wanted.data)
        began = time.perf_counter()
        train_all(engine, ready, {}, (), check, lambda place, curve: None)
        _await_device(wanted.data)
        return (time.perf_counter() - began) / len(made), made[0].network

    try:
        first, network = once(_STEPS)
        short, long = once(1)[0], min(once(1 + _STEPS)[0], once(1 + _STEPS)[0])
    except JobError:
        raise
    except Exception as error:  # whatever a compiler or a driver says: another engine does it
        return Probed(problem=f"{type(error).__name__}: {error}"[:300])
    step = max(long - short, 1e-9) / _STEPS
    return Probed(max(0.0, first - step * _STEPS), step, _difference(network, wanted.network))


def _await_device(data: Examples) -> None:
    if data.images.device.type == "cuda":
        torch.cuda.synchronize()


def _difference(one: nn.Module, other: nn.Module) -> float:
    flat = [nn.utils.parameters_to_vector(n.parameters()).detach().double() for n in (one, other)]
    return float((flat[0] - flat[1]).norm() / flat[1].norm())


def fastest(found: Mapping[EngineName, Probed], steps: float) -> EngineName:
    """The engine that ends first with so many steps to do; of equal ones the first."""
    ready = {
        name: one.start + one.step * steps
        for name, one in found.items()
        if one.problem is None and one.differs <= AGREES
    }
    return min(ready, key=lambda name: ready[name])
