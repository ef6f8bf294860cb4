"""One training of a network and its accuracies along the way.

It does what was measured to pay on a CPU: one thread a run, no data loader, test images resident,
batches and evaluation cut into chunks whose activations stay in the cache, one fused optimiser
kernel. On a GPU the same code runs, whole batches at a time and channels last. How a batch goes
through a network, and whether several trainings go side by side, is up to an engine (`engines`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from methods.rank_distilled_dataset.data.augment import Augment
from methods.rank_distilled_dataset.data.examples import Examples
from methods.rank_distilled_dataset.networks import losses
from methods.rank_distilled_dataset.networks.networks import mean_logits
from methods.rank_distilled_dataset.networks.optimisers import (
    OptimiserName,
    ScheduleName,
    make_optimiser,
    rate,
    set_rate,
)

Check = Callable[[], None]
#: What takes images to logits: a network, or something faster that has its weights.
Forward = Callable[[Tensor], Tensor]
LossName = Literal["ce", "kl", "sce", "mse_gt"]
#: Pixels of a chunk on a CPU: at width 128 their activations are 4 MiB a layer.
CHUNK_PIXELS = 8192
GPU_CHUNK = 1024


@dataclass(frozen=True)
class Recipe:
    """Everything but data, network and seed that determines a training.

    Attributes:
        loss: `ce` with hard labels; the others with soft targets (logits).
        loss_options: keyword arguments of the loss.
        batch_size: a last batch of one image joins the batch before it.
        evaluate: epochs (1-based) after which accuracies are measured; the last one is always.
        give_up: accuracy on the first evaluated set below which the training stops at its first
            evaluation; None: never.
        late: evaluated sets that are measured at the end only.
    """

    epochs: int
    lr: float
    batch_size: int = 256
    optimiser: OptimiserName = "sgd"
    schedule: ScheduleName = "step"
    step_size: int | None = None
    gamma: float = 0.1
    weight_decay: float = 5e-4
    momentum: float = 0.9
    augment: Augment = field(default_factory=Augment)
    loss: LossName = "ce"
    loss_options: dict[str, float | bool] = field(default_factory=dict)
    evaluate: tuple[int, ...] = ()
    give_up: float | None = None
    late: tuple[str, ...] = ()


@dataclass
class Curve:
    """What a training showed.

    Attributes:
        epochs: when it was evaluated, 1-based.
        accuracy: fractions, for each evaluated set; those of `late` sets have fewer entries.
        loss: mean training loss of the epochs up to each evaluation, from the one before; None
            where it is not finite.
        stopped: it gave up after its first evaluation.
        seconds: processor time of this process.
    """

    epochs: list[int] = field(default_factory=list)
    accuracy: dict[str, list[float]] = field(default_factory=dict)
    loss: list[float | None] = field(default_factory=list)
    stopped: bool = False
    seconds: float = 0.0


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread a run: more of them wait for each other on maps this small."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def train(
    network: nn.Module,
    data: Examples,
    recipe: Recipe,
    seed: int,
    evaluated: Mapping[str, Examples] | None = None,
    teachers: Sequence[nn.Module] = (),
    check: Check = lambda: None,
) -> Curve:
    """Train in place, step by step in PyTorch's eager mode.

    Args:
        network: with its initial weights, on the device of the data.
        seed: of sample order and augmentation.
        evaluated: sets whose accuracy is measured, by name, on the same device.
        teachers: networks whose mean logits on the augmented batch are the soft targets; without
            them the soft targets are `data.targets`.
        check: called every step; may raise.
    """
    session = Session(network, data, recipe, seed, teachers)
    return advance([session], evaluated or {}, check)[0]


def in_turn(sessions: Sequence[Session], epoch: int, check: Check) -> None:
    """An epoch (0-based) of trainings of equally many steps: a step of each in turn."""
    for _ in zip(*(session.steps(epoch, check) for session in sessions), strict=False):
        pass


def advance(
    sessions: Sequence[Session],
    evaluated: Mapping[str, Examples],
    check: Check = lambda: None,
    pass_through: Callable[[Sequence[Session], int, Check], None] = in_turn,
) -> list[Curve]:
    """Carry trainings through, side by side.

    Args:
        pass_through: takes those that have not given up through an epoch.
    """
    started = time.process_time()
    recipe = sessions[0].recipe
    evaluations = {*recipe.evaluate, recipe.epochs}
    for session in sessions:
        session.curve.accuracy.update({name: [] for name in evaluated})
    for epoch in range(recipe.epochs):
        going = [session for session in sessions if not session.curve.stopped]
        pass_through(going, epoch, check)
        if epoch + 1 in evaluations:
            for session in going:
                session.measure(epoch, evaluated, check)
    for session in sessions:
        session.curve.seconds = (time.process_time() - started) / len(sessions)
    return [session.curve for session in sessions]


class Session:
    """A training on its way.

    Attributes:
        forward: takes images to logits with the weights of now.
        loss: of logits, soft targets and labels.
        total: loss of the steps since it was last looked at.
    """

    def __init__(
        self,
        network: nn.Module,
        data: Examples,
        recipe: Recipe,
        seed: int,
        teachers: Sequence[nn.Module] = (),
    ) -> None:
        for teacher in teachers:
            teacher.eval()
        if data.images.device.type == "cuda":
            network.to(memory_format=torch.channels_last)
        self.network, self.data, self.recipe, self.teachers = network, data, recipe, teachers
        self.forward: Forward = network
        self.curve = Curve()
        self.chunk = chunk_size(data.images, network)
        self.optimiser = self.make_optimiser(recipe.lr)
        self.total = torch.zeros((), device=data.images.device)
        self._orders, self._draws = generators(seed)
        self.loss, self._steps = loss_of(recipe), 0

    def make_optimiser(self, lr: float | Tensor) -> torch.optim.Optimizer:
        """That of the recipe."""
        recipe = self.recipe
        return make_optimiser(
            recipe.optimiser, self.network.parameters(), lr, recipe.weight_decay, recipe.momentum
        )

    def steps(self, epoch: int, check: Check) -> Iterator[None]:
        """One pass over the data, a step each time it is asked."""
        for batch in self.batches_of(epoch, check):
            self.step(batch)
            yield

    def batches_of(self, epoch: int, check: Check) -> Iterator[Examples]:
        """What the steps of an epoch (0-based) see, with the learning rate set for them."""
        recipe = self.recipe
        factor = rate(recipe.schedule, epoch, recipe.epochs, recipe.step_size, recipe.gamma)
        for group in self.optimiser.param_groups:
            set_rate(group, recipe.lr * factor)
        self.network.train()
        for batch in batches(self.data, recipe.batch_size, self._orders):
            check()
            batch.images = recipe.augment(batch.images, self._draws)
            self._steps += 1
            yield batch

    def step(self, batch: Examples) -> None:
        """One step of the optimiser; the loss is added to `total`."""
        self.optimiser.zero_grad(set_to_none=True)
        for part in _split(batch, self.chunk):
            targets = part.targets
            if self.teachers:
                targets = mean_logits(self.teachers, part.images)
            loss = self.loss(self.forward(part.images), targets, part.labels)
            loss = loss * (len(part.labels) / len(batch.labels))
            loss.backward()
            self.total += loss.detach()
        self.optimiser.step()

    def measure(self, epoch: int, evaluated: Mapping[str, Examples], check: Check) -> None:
        """Enter an epoch (0-based) in the curve."""
        self.curve.epochs.append(epoch + 1)
        self.curve.loss.append(self.mean_loss())
        measure(
            self.recipe,
            evaluated,
            self.curve,
            lambda examples: accuracy(self.network, examples, check, self.forward),
        )

    def mean_loss(self) -> float | None:
        """Mean loss of the steps since the last call, None where it is not finite."""
        mean = float(self.total) / self._steps
        self.total.zero_()
        self._steps = 0
        return mean if math.isfinite(mean) else None


def measure(
    recipe: Recipe,
    evaluated: Mapping[str, Examples],
    curve: Curve,
    measured: Callable[[Examples], float],
) -> None:
    """Note the accuracies of the epoch that was entered last, and whether the training gives up."""
    last = curve.epochs[-1] == recipe.epochs
    for place, (name, examples) in enumerate(evaluated.items()):
        decides = place == 0 and recipe.give_up is not None and len(curve.epochs) == 1
        if name not in recipe.late or decides or last:
            curve.accuracy[name].append(measured(examples))
    if _gives_up(recipe, curve):
        curve.stopped = True
        for name in [name for name, found in curve.accuracy.items() if not found]:
            curve.accuracy[name].append(measured(evaluated[name]))


def accuracy(
    network: nn.Module,
    examples: Examples,
    check: Check = lambda: None,
    forward: Forward | None = None,
) -> float:
    """The share of images whose highest logit is that of their class."""
    found = logits(network, examples.images, check, forward).argmax(dim=1)
    return int((found == examples.labels).sum()) / len(examples.labels)


def logits(
    network: nn.Module,
    images: Tensor,
    check: Check = lambda: None,
    forward: Forward | None = None,
) -> Tensor:
    """Logits [N, classes] in evaluation mode, in chunks; the mode of the network is restored."""
    training, forward = network.training, network if forward is None else forward
    network.eval()
    with torch.inference_mode():
        parts = []
        for part in images.split(chunk_size(images)):
            check()
            parts.append(forward(part))
    network.train(training)
    return torch.cat(parts)


def generators(seed: int) -> tuple[torch.Generator, torch.Generator]:
    """Of sample order and of augmentation: on the CPU, so that every device sees the same."""
    return torch.Generator().manual_seed(seed), torch.Generator().manual_seed(seed + 1)


def chunk_size(images: Tensor, trained: nn.Module | None = None) -> int:
    """Images to pass at a time; a network with batch norm is trained on whole batches."""
    whole = trained is not None and any(isinstance(m, nn.BatchNorm2d) for m in trained.modules())
    if whole:
        return len(images)
    if images.device.type != "cpu":
        return GPU_CHUNK
    return min(max(CHUNK_PIXELS // (images.shape[2] * images.shape[3]), 8), 128)


def _split(batch: Examples, size: int) -> Iterator[Examples]:
    """Parts whose losses, weighted by their sizes, add up to the loss of the batch."""
    count = len(batch.images)
    if count <= size:
        yield batch
        return
    for start in range(0, count, size):
        place = slice(start, start + size)
        targets = None if batch.targets is None else batch.targets[place]
        yield Examples(batch.images[place], batch.labels[place], targets)


def _gives_up(recipe: Recipe, curve: Curve) -> bool:
    if recipe.give_up is None or len(curve.epochs) != 1 or curve.epochs[0] == recipe.epochs:
        return False
    return bool(curve.accuracy) and next(iter(curve.accuracy.values()))[0] < recipe.give_up


def batches(data: Examples, size: int, generator: torch.Generator) -> Iterator[Examples]:
    """Batches of one epoch, each image once, in random order."""
    count = len(data.images)
    if count <= size:
        # The order within a batch changes nothing but rounding.
        yield Examples(data.images, data.labels, data.targets)
        return
    parts = list(torch.randperm(count, generator=generator).to(data.images.device).split(size))
    if len(parts[-1]) == 1:
        last = parts.pop()
        parts[-1] = torch.cat([parts[-1], last])
    for part in parts:
        targets = None if data.targets is None else data.targets[part]
        yield Examples(data.images[part], data.labels[part], targets)


def loss_of(recipe: Recipe) -> Callable[[Tensor, Tensor | None, Tensor], Tensor]:
    """The loss of logits, soft targets and labels."""
    options: dict[str, Any] = dict(recipe.loss_options)
    if recipe.loss == "ce":
        return lambda student, _, labels: functional.cross_entropy(student, labels)
    if recipe.loss == "mse_gt":
        return lambda student, targets, labels: losses.mse_with_labels(
            student, _given(targets), labels, **options
        )
    soft = losses.kl_divergence if recipe.loss == "kl" else losses.soft_cross_entropy
    return lambda student, targets, _: soft(student, _given(targets), **options)


def _given(targets: Tensor | None) -> Tensor:
    if targets is None:
        raise ValueError("this loss needs soft targets or teachers")
    return targets


def late(evaluated: Iterable[str]) -> tuple[str, ...]:
    """The sets to measure at the end only: the test set too, where a part of it draws the curve."""
    return ("held_out", "test") if "curve" in evaluated else ("held_out",)
