"""Trains weights of a model and keeps them at evenly spaced steps."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import nn

from methods.errors import JobError
from methods.finetuning.schedule import Plan
from methods.resume import ResumeStore

Rows = TypeVar("Rows")

_CLIP = 1.0


@dataclass(frozen=True)
class Trained:
    """What training left behind.

    Attributes:
        marks: steps of the checkpoints. losses: mean loss of the steps up to each mark.
        epochs: passes over the rows.
    """

    marks: list[int]
    losses: list[float]
    epochs: float = 0.0


class Loop(Generic[Rows]):
    """AdamW over the weights that are trained, with the schedule and the checkpoints of a plan.

    Weights are kept as `weights-<n>`, the state of the optimizer as `training`; both come back to
    the last bit, so that on a CPU an interrupted training ends like any other.

    Args:
        model: all weights but the trained ones are frozen.
        trained: names of the weights that are trained.
        count: rows of an epoch.
        store: where checkpoints are kept.
    """

    def __init__(
        self, model: nn.Module, trained: Iterable[str], count: int, plan: Plan, store: ResumeStore
    ) -> None:
        self.model, self.plan, self.store = model, plan, store
        self.steps, self.marks = plan.steps(count), plan.marks(count)
        names = set(trained)
        self.weights = {name: p for name, p in model.named_parameters() if name in names}
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in names)
        self.optimizer = torch.optim.AdamW(
            self.weights.values(), lr=plan.learning_rate, weight_decay=plan.weight_decay
        )
        self.losses = self._resume()

    @property
    def done(self) -> int:
        """Steps that an earlier attempt has done."""
        return self.marks[len(self.losses) - 1] if self.losses else 0

    def run(
        self,
        batches: Iterable[Rows],
        backward: Callable[[Rows], float],
        tell: Callable[[int, int], None],
        metric: Callable[[str, float, int], None],
    ) -> Trained:
        """Train over the batches of the steps from `done` on.

        Args:
            backward: adds the gradients of a step's loss, and returns the loss.
            tell: called with steps done and steps in all.
            metric: called with `loss` or `learning_rate`, its value and the step.

        Raises:
            JobError: `numerical_failure` when the loss is not finite.
        """
        self.model.train()
        total, seen = 0.0, 0
        for step, batch in enumerate(batches, start=self.done):
            tell(step, self.steps)
            for group in self.optimizer.param_groups:
                group["lr"] = self.plan.rate(step, self.steps)
            loss = backward(batch)
            metric("loss", loss, step)
            metric("learning_rate", self.plan.rate(step, self.steps), step)
            norm = nn.utils.clip_grad_norm_(list(self.weights.values()), _CLIP)
            if not (math.isfinite(loss) and bool(torch.isfinite(norm))):
                raise JobError(
                    "numerical_failure",
                    f"The loss is not finite at step {step}; lower the learning rate.",
                )
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            total, seen = total + loss, seen + 1
            if step + 1 == self.marks[len(self.losses)]:
                self.losses.append(total / seen)
                total, seen = 0.0, 0
                self._keep()
        self.model.eval()
        return Trained(self.marks, self.losses, self.plan.epochs)

    def _keep(self) -> None:
        weights = {name: weight.detach() for name, weight in self.weights.items()}
        self.store.keep(f"weights-{len(self.losses) - 1}", _packed(weights))
        # Last, so that a checkpoint counts only when its weights are there.
        state = {"optimizer": self.optimizer.state_dict(), "losses": self.losses}
        self.store.keep("training", _packed(state))

    def _resume(self) -> list[float]:
        """Losses up to the last checkpoint of an earlier attempt, whose state is loaded."""
        data = self.store.find("training")
        if data is None:
            return []
        state = torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
        losses: list[float] = state["losses"]
        if any(self.store.find(f"weights-{n}") is None for n in range(len(losses))):
            return []
        # The optimizer moves its state to where the weights are.
        self.optimizer.load_state_dict(state["optimizer"])
        put_weights(self.model, weights_of(self.store, len(losses) - 1))
        return losses


def weights_of(store: ResumeStore, checkpoint: int) -> bytes:
    """The trained weights of a checkpoint, as `put_weights` takes them.

    Raises:
        JobError: `internal` when they are gone.
    """
    data = store.find(f"weights-{checkpoint}")
    if data is None:
        raise JobError("internal", f"The weights of checkpoint {checkpoint} are gone.")
    return data


def put_weights(model: nn.Module, weights: bytes) -> None:
    """Put the weights of a checkpoint into the model."""
    state: Mapping[str, torch.Tensor] = torch.load(
        io.BytesIO(weights), weights_only=True, map_location="cpu"
    )
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, value in state.items():
            parameters[name].copy_(value)


def _packed(value: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()
