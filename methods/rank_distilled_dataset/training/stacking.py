"""Trainings of one architecture as one: every tensor has them as its first axis."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from methods.rank_distilled_dataset.data.examples import Examples
from methods.rank_distilled_dataset.networks.networks import mean_logits
from methods.rank_distilled_dataset.training.cuda_graphs import Recorded, own_stream, reset
from methods.rank_distilled_dataset.training.session import Check, Curve, Session, advance


def train_stacked(
    sessions: Sequence[Session],
    evaluated: Mapping[str, Examples],
    check: Check = lambda: None,
) -> list[Curve]:
    """Carry through trainings that have not begun; their convolutions become grouped ones.

    Each has its own images, order, augmentation and learning rate; all have as many images. One
    that gives up goes on beside the others, unheeded.
    """
    with own_stream(sessions[0].data.images.device):
        return advance(sessions, evaluated, check, _Stack(sessions).pass_through)


class _Stack:
    """The weights of all trainings; those of each network are views into them."""

    def __init__(self, sessions: Sequence[Session]) -> None:
        self._sessions = sessions
        networks = [session.network.train() for session in sessions]
        self._shell = copy.deepcopy(networks[0])
        self._weights = _stacked([dict(n.named_parameters()) for n in networks])
        self._buffers = _stacked([dict(n.named_buffers()) for n in networks])
        for place, network in enumerate(networks):
            _show(network, self._weights, self._buffers, place)
        self._totals = torch.stack([session.total for session in sessions])
        for place, session in enumerate(sessions):
            session.total = self._totals[place]
        self._recorded: Recorded | None = None
        if self._totals.device.type == "cuda":
            self._record()

    def pass_through(self, going: Sequence[Session], epoch: int, check: Check) -> None:
        """An epoch of all, of those too that have given up."""
        batches = (session.batches_of(epoch, check) for session in self._sessions)
        for side_by_side in zip(*batches, strict=True):
            self.step(side_by_side)

    def step(self, side_by_side: Sequence[Examples]) -> None:
        """One step of each optimiser."""
        targets = [batch.targets for batch in side_by_side]
        batch = Examples(
            torch.stack([batch.images for batch in side_by_side]),
            torch.stack([batch.labels for batch in side_by_side]),
            None if targets[0] is None else torch.stack([t for t in targets if t is not None]),
        )
        (self._recorded or self._step)(batch)

    def _step(self, batch: Examples) -> None:
        weights = {name: w.detach().requires_grad_() for name, w in self._weights.items()}
        forward = vmap(lambda w, b, x: functional_call(self._shell, (w, b), (x,)))
        logits = forward(weights, self._buffers, batch.images)
        losses = []
        for place, session in enumerate(self._sessions):
            targets = None if batch.targets is None else batch.targets[place]
            if session.teachers:
                targets = mean_logits(session.teachers, batch.images[place])
            losses.append(session.loss(logits[place], targets, batch.labels[place]))
        together = torch.stack(losses)
        found = torch.autograd.grad(together.sum(), list(weights.values()))
        # Fused optimisers read a gradient in the order of its memory, whatever its strides.
        gradients = [gradient.contiguous() for gradient in found]
        for place, session in enumerate(self._sessions):
            own = session.network.parameters()
            for parameter, gradient in zip(own, gradients, strict=True):
                parameter.grad = gradient[place]
            session.optimiser.step()
        self._totals += together.detach()

    def _record(self) -> None:
        """On a GPU the step is replayed."""
        initial = [t.clone() for t in self._tensors()]
        for session in self._sessions:
            rate = torch.tensor(session.recipe.lr, device=self._totals.device)
            session.optimiser = session.make_optimiser(rate)

        def restore() -> None:
            for tensor, value in zip(self._tensors(), initial, strict=True):
                tensor.copy_(value)
            for session in self._sessions:
                reset(session.optimiser)

        self._recorded = Recorded(self._step, restore)

    def _tensors(self) -> list[Tensor]:
        return [*self._weights.values(), *self._buffers.values(), self._totals]


def _stacked(tensors: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    # Contiguous, as gradients will be: fused optimisers ask for the same order in memory.
    return {
        name: torch.stack([one[name].detach() for one in tensors]).contiguous()
        for name in tensors[0]
    }


def _show(
    network: nn.Module, weights: Mapping[str, Tensor], buffers: Mapping[str, Tensor], place: int
) -> None:
    """Let the tensors of a network be views into stacked ones."""
    for name, parameter in network.named_parameters():
        parameter.data = weights[name][place]
    for name, _ in list(network.named_buffers()):
        owner, _, short = name.rpartition(".")
        setattr(network.get_submodule(owner), short, buffers[name][place])
