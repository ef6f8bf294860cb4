"""Distilled sets by training: distribution matching and gradient matching."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional

from methods.rank_distilled_dataset.data.augment import Augment
from methods.rank_distilled_dataset.data.examples import Examples
from methods.rank_distilled_dataset.networks.networks import build
from methods.rank_distilled_dataset.training.session import Recipe, train
from methods.seeds import derived_seed

#: Momentum of the images, in both papers' code.
MOMENTUM = 0.5
#: DC's image steps a restart, and network epochs between them, from this ipc on.
LOOPS = {1: (1, 1), 10: (10, 50), 20: (20, 25), 30: (30, 20), 40: (40, 15), 50: (50, 10)}


@dataclass
class State:
    """Where a distillation stands; it goes on from here exactly as it would have.

    Attributes:
        images: [classes * ipc, C, H, W], class by class.
        velocity: of the images, the same shape.
        done: iterations.
        loss: of each iteration, summed over its steps.
        seconds: processor seconds of earlier attempts.
    """

    images: Tensor
    velocity: Tensor
    done: int = 0
    loss: list[float] = field(default_factory=list)
    seconds: float = 0.0


@dataclass(frozen=True)
class Matching:
    """What both methods need.

    Attributes:
        real: the training set. ipc, classes: of the distilled one.
        model: network name. lr: step of the images. batch: real images of a class.
        augment: drawn once for real and distilled images.
    """

    real: Examples
    ipc: int
    classes: int
    model: str
    lr: float
    batch: int
    augment: Augment
    seed: int

    def network(self, iteration: int) -> nn.Module:
        """A random network, another one each iteration."""
        shape = tuple(self.real.images.shape[1:])
        seed = derived_seed("distil", self.seed, iteration)
        network = build(self.model, shape, self.classes, seed)
        return network.to(self.real.images.device)

    def labels(self) -> Tensor:
        """Of the distilled images."""
        return torch.arange(self.classes, device=self.real.images.device).repeat_interleave(
            self.ipc
        )


def distribution_step(given: Matching, state: State) -> float:
    """One iteration of DM: the class means of a random network's features are matched.

    Zhao and Bilen, "Dataset condensation with distribution matching" (WACV 2023), eq. 6: the sum
    over classes of the squared distance between the mean features of real and distilled images.

    Returns the loss; images, velocity and count of the state are changed.
    """
    generator = torch.Generator().manual_seed(derived_seed("real", given.seed, state.done))
    network = given.network(state.done).train().requires_grad_(False)
    images = state.images.detach().requires_grad_(True)
    loss = torch.zeros((), device=images.device)
    mine = images.reshape(given.classes, given.ipc, *images.shape[1:])
    for kind in range(given.classes):
        draw = derived_seed("augment", given.seed, state.done, kind)
        real = _augmented(given, _real_batch(given, kind, generator), draw)
        with torch.no_grad():
            wanted = _mean_features(network, real)
        found = _mean_features(network, _augmented(given, mine[kind], draw))
        loss = loss + (wanted - found).square().sum()
    _descend(state, torch.autograd.grad(loss, images)[0], given.lr)
    state.done += 1
    state.loss.append(float(loss.detach()))
    return state.loss[-1]


def gradient_step(
    given: Matching, state: State, outer: int, inner: int, check: Callable[[], None]
) -> float:
    """One iteration of DC: a random network is trained on the distilled images, and before each
    of its steps the images move so that their gradients point along those of real images.

    Zhao, Mopuri and Bilen, "Dataset condensation with gradient matching" (ICLR 2021), algorithm 1
    and eq. 9: for each class and layer the sum over outputs of 1 - cos of the two gradients.

    Args:
        outer: image steps. inner: epochs of the network on the images between them.
    """
    generator = torch.Generator().manual_seed(derived_seed("real", given.seed, state.done))
    network = given.network(state.done).train()
    total = 0.0
    for turn in range(outer):
        check()
        images = state.images.detach().requires_grad_(True)
        mine = images.reshape(given.classes, given.ipc, *images.shape[1:])
        change = torch.zeros_like(images).reshape_as(mine)
        for kind in range(given.classes):
            draw = derived_seed("augment", given.seed, state.done, turn, kind)
            real = _augmented(given, _real_batch(given, kind, generator), draw)
            wanted = _gradients(network, real, kind, create_graph=False)
            found = _gradients(network, _augmented(given, mine[kind], draw), kind, True)
            loss = gradient_distance(found, wanted)
            # Class by class, so that one class's graph is held at a time.
            gradient = torch.autograd.grad(loss, images, retain_graph=True)[0]
            change[kind] = gradient.reshape_as(mine)[kind]
            total += float(loss.detach())
        _descend(state, change.reshape_as(images), given.lr)
        if inner and turn + 1 < outer:
            seed = derived_seed("inner", given.seed, state.done, turn)
            data = Examples(state.images.detach(), given.labels())
            plain = Recipe(inner, 0.01, step_size=inner, momentum=0.0, weight_decay=0.0)
            train(network, data, plain, seed, check=check)
            network.train()
    state.done += 1
    state.loss.append(total / outer)
    return state.loss[-1]


def loops(ipc: int) -> tuple[int, int]:
    """The usual `outer` and `inner` of DC."""
    return LOOPS[max(known for known in LOOPS if known <= ipc)]


def gradient_distance(found: list[Tensor], wanted: list[Tensor]) -> Tensor:
    """Sum over layers and outputs of 1 - cos of two gradients; biases and norms are left out."""
    total = torch.zeros((), device=found[0].device)
    for mine, real in zip(found, wanted, strict=True):
        if mine.ndim > 1:
            cosine = functional.cosine_similarity(mine.flatten(1), real.flatten(1), dim=1, eps=1e-6)
            total = total + (1 - cosine).sum()
    return total


def _gradients(network: nn.Module, images: Tensor, kind: int, create_graph: bool) -> list[Tensor]:
    labels = torch.full((len(images),), kind, device=images.device)
    loss = functional.cross_entropy(network(images), labels)
    found = torch.autograd.grad(loss, list(network.parameters()), create_graph=create_graph)
    return [gradient if create_graph else gradient.detach() for gradient in found]


def _real_batch(given: Matching, kind: int, generator: torch.Generator) -> Tensor:
    rows = (given.real.labels.cpu() == kind).nonzero().flatten()
    chosen = rows[torch.randperm(len(rows), generator=generator)[: given.batch]]
    return given.real.images[chosen.to(given.real.images.device)]


def _augmented(given: Matching, images: Tensor, draw: int) -> Tensor:
    """The same draw for every batch that comes with the same number."""
    return given.augment(images, torch.Generator().manual_seed(draw))


def _mean_features(network: nn.Module, images: Tensor) -> Tensor:
    return network.embed(images).mean(dim=0)


def _descend(state: State, gradient: Tensor, lr: float) -> None:
    state.velocity = MOMENTUM * state.velocity + gradient
    state.images = state.images.detach() - lr * state.velocity
