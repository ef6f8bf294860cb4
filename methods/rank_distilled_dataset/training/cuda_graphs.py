"""Steps of a training as CUDA graphs: one launch in place of hundreds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from methods.errors import JobError
from methods.rank_distilled_dataset.data.examples import Examples
from methods.rank_distilled_dataset.training.session import Check, Session

#: Libraries choose kernels and take memory in their first passes, which must not be recorded.
_WARM_UP = 3


class Recorded:
    """A step that works on tensors of its own, recorded the first time.

    Args:
        step: reads the batch that it is given and changes weights in place. It is called on the
            current stream, which must not be the default one.
        restore: takes back what the calls before recording changed.
    """

    def __init__(self, step: Callable[[Examples], None], restore: Callable[[], None]) -> None:
        self._step, self._restore = step, restore
        self._held: Examples | None = None
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, batch: Examples) -> None:
        """Do the step; batches of another shape than the first are not replayed."""
        if self._graph is None or self._held is None:
            self._held = Examples(*(None if t is None else t.clone() for t in batch.tensors))
            self._graph = self._record(self._held)
        elif batch.images.shape != self._held.images.shape:
            self._step(batch)
            return
        for held, given in zip(self._held.tensors, batch.tensors, strict=True):
            if held is not None and given is not None:
                held.copy_(given)
        self._graph.replay()

    def _record(self, held: Examples) -> torch.cuda.CUDAGraph:
        for _ in range(_WARM_UP):
            self._step(held)
        self._restore()
        graph = torch.cuda.CUDAGraph()
        stream = torch.cuda.current_stream()
        with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
            self._step(held)
        return graph


def reset(optimiser: torch.optim.Optimizer) -> None:
    """Momenta and step counts to 0, in place."""
    for state in optimiser.state.values():
        for value in state.values():
            if value is not None:
                value.zero_()


@contextmanager
def own_stream(device: torch.device) -> Iterator[None]:
    """Work on a GPU goes to a stream of its own, which steps can be recorded on."""
    if device.type != "cuda":
        yield
        return
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        yield
    torch.cuda.current_stream().wait_stream(stream)


class GraphSession(Session):
    """A training on a stream of its own whose steps are replayed.

    Batches of other shapes than the first, and evaluation, go through the network launch by launch.
    """

    def __init__(self, network: nn.Module, *others: Any) -> None:
        super().__init__(network, *others)
        device = self.data.images.device
        if device.type != "cuda":
            raise JobError("input_invalid", "The engine `graph` needs a GPU: say device `gpu`.")
        self._stream = torch.cuda.Stream()
        self._stream.wait_stream(torch.cuda.current_stream())
        # A tensor, for the recorded step to find the learning rate of the moment in.
        self.optimiser = self.make_optimiser(torch.tensor(self.recipe.lr, device=device))
        self._initial = {name: t.clone() for name, t in network.state_dict().items()}
        self._recorded = Recorded(super().step, self._restore)

    def steps(self, epoch: int, check: Check) -> Iterator[None]:
        """See `Session`."""
        going = super().steps(epoch, check)
        while True:
            # Not around the whole: between two steps another session has the floor.
            with torch.cuda.stream(self._stream):
                if next(going, self) is self:
                    return
            yield

    def step(self, batch: Examples) -> None:
        """See `Session`."""
        if len(batch.images) > self.chunk:
            super().step(batch)
        else:
            self._recorded(batch)

    def measure(self, *arguments: Any) -> None:
        """See `Session`."""
        with torch.cuda.stream(self._stream):
            super().measure(*arguments)

    def _restore(self) -> None:
        self.network.load_state_dict(self._initial)
        reset(self.optimiser)
        self.total.zero_()
