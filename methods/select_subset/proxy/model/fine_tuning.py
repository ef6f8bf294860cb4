"""Fine-tunes the proxy once over the data and keeps its weights at evenly spaced steps."""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from methods.errors import JobError
from methods.resume import ResumeStore
from methods.select_subset.proxy.model.vlm import Proxy
from methods.select_subset.proxy.rows.encoding import IGNORED, Batch, Encoded, packed

_CLIP = 1.0


@dataclass(frozen=True)
class Plan:
    """How to train.

    Attributes:
        rows: rows of a step. tokens: of a part of a step that is in memory at a time.
        checkpoints: how many, evenly spaced, the last at the end.
        vision: train the image encoder too.
    """

    epochs: float = 1.0
    checkpoints: int = 7
    rows: int = 32
    tokens: int = 16_384
    learning_rate: float = 2e-5
    warmup: float = 0.03
    weight_decay: float = 0.0
    vision: bool = False
    seed: int = 0

    def steps(self, count: int) -> int:
        """Steps over `count` rows."""
        return max(1, math.ceil(count * self.epochs / self.rows))

    def marks(self, count: int) -> list[int]:
        """After which steps the checkpoints are, ascending; fewer where steps are few."""
        steps, wanted = self.steps(count), self.checkpoints
        return sorted({max(1, round(steps * (n + 1) / wanted)) for n in range(wanted)})

    def rate(self, step: int, steps: int) -> float:
        """Learning rate of step 0, 1, ...: linear up, then a cosine down to 0."""
        rising = math.ceil(self.warmup * steps)
        if step < rising:
            return self.learning_rate * (step + 1) / rising
        share = (step - rising) / max(1, steps - rising)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * share))


def row_order(plan: Plan, count: int) -> Iterator[np.ndarray[Any, np.dtype[np.int64]]]:
    """The rows of each step: every epoch is an order of its own."""
    left: np.ndarray[Any, np.dtype[np.int64]] = np.zeros(0, dtype=np.int64)
    epoch = 0
    for _ in range(plan.steps(count)):
        while len(left) < plan.rows:
            rng = np.random.default_rng([plan.seed, 11, epoch])
            left = np.concatenate([left, rng.permutation(count)])
            epoch += 1
        yield left[: plan.rows]
        left = left[plan.rows :]


@dataclass(frozen=True)
class Trained:
    """What training left behind.

    Attributes:
        marks: steps of the checkpoints. losses: mean loss of the steps up to each mark.
    """

    marks: list[int]
    losses: list[float]


def fine_tune(
    proxy: Proxy,
    rows: Callable[[Iterable[Sequence[int]]], Iterator[list[Encoded]]],
    count: int,
    plan: Plan,
    kept: ResumeStore,
    tell: Callable[[int, int], None],
) -> Trained:
    """Train, or go on where an earlier attempt stopped.

    The loss of a step is the mean over all its answer tokens; the parts that a step is cut into
    add up to exactly that. Weights are kept as `weights-<n>`, the state of the optimizer as
    `training`.

    Args:
        rows: encodes batch after batch of rows 0 .. count - 1, if it can ahead of their use.
        tell: called with steps done and steps in all.

    Raises:
        JobError: `numerical_failure` when the loss is not finite.
    """
    steps, marks = plan.steps(count), plan.marks(count)
    weights = proxy.trainable(plan.vision)
    for name, parameter in proxy.model.named_parameters():
        parameter.requires_grad_(name in weights)
    optimizer = torch.optim.AdamW(
        weights.values(), lr=plan.learning_rate, weight_decay=plan.weight_decay
    )
    losses = _resume(proxy, optimizer, kept, marks)
    done = marks[len(losses) - 1] if losses else 0
    proxy.model.train()
    total, seen = 0.0, 0
    order = itertools.islice(row_order(plan, count), done, None)
    for step, batch in enumerate(rows(places.tolist() for places in order), start=done):
        tell(step, steps)
        for group in optimizer.param_groups:
            group["lr"] = plan.rate(step, steps)
        total += _step(proxy, batch, plan, weights, optimizer, step)
        seen += 1
        if step + 1 == marks[len(losses)]:
            losses.append(total / seen)
            total, seen = 0.0, 0
            _keep(weights, optimizer, kept, losses)
    proxy.model.eval()
    return Trained(marks, losses)


def _step(
    proxy: Proxy,
    rows: list[Encoded],
    plan: Plan,
    weights: dict[str, torch.nn.Parameter],
    optimizer: torch.optim.Optimizer,
    step: int,
) -> float:
    answers = sum(int((row.labels[1:] != IGNORED).sum()) for row in rows)
    total = 0.0
    for places in packed([len(row.ids) for row in rows], plan.tokens, len(rows)):
        batch = Batch.of([rows[p] for p in places], proxy.encoder.pad, proxy.device)
        keep = torch.nonzero((batch.labels[:, 1:] != IGNORED).any(dim=0))[:, 0]
        with proxy.autocast():
            output = proxy.model(**batch.arguments(), use_cache=False, logits_to_keep=keep)
        target = batch.labels[:, keep + 1]
        loss = torch.nn.functional.cross_entropy(
            output.logits.float().flatten(0, 1),
            target.flatten(),
            ignore_index=IGNORED,
            reduction="sum",
        )
        loss = loss / answers
        loss.backward()
        total += float(loss.detach())
    norm = torch.nn.utils.clip_grad_norm_(list(weights.values()), _CLIP)
    if not (math.isfinite(total) and bool(torch.isfinite(norm))):
        raise JobError(
            "numerical_failure",
            f"The loss of the proxy is not finite at step {step}; lower fine_tune.learning_rate.",
        )
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return total


def _keep(
    weights: dict[str, torch.nn.Parameter],
    optimizer: torch.optim.Optimizer,
    kept: ResumeStore,
    losses: list[float],
) -> None:
    kept.keep(f"weights-{len(losses) - 1}", _packed({n: p.detach() for n, p in weights.items()}))
    # Last, so that a checkpoint counts only when its weights are there.
    kept.keep("training", _packed({"optimizer": optimizer.state_dict(), "losses": losses}))


def _resume(
    proxy: Proxy, optimizer: torch.optim.Optimizer, kept: ResumeStore, marks: list[int]
) -> list[float]:
    """Losses up to the last checkpoint of an earlier attempt, whose state is loaded."""
    data = kept.find("training")
    if data is None:
        return []
    state = torch.load(io.BytesIO(data), weights_only=True, map_location=proxy.device)
    losses: list[float] = state["losses"]
    if any(kept.find(f"weights-{n}") is None for n in range(len(losses))):
        return []
    optimizer.load_state_dict(state["optimizer"])
    put_weights(proxy, weights_of(kept, len(losses) - 1))
    return losses


def weights_of(kept: ResumeStore, checkpoint: int) -> bytes:
    """The trained weights of a checkpoint, as `put_weights` takes them.

    Raises:
        JobError: `internal` when they are gone.
    """
    data = kept.find(f"weights-{checkpoint}")
    if data is None:
        raise JobError("internal", f"The weights of checkpoint {checkpoint} are gone.")
    return data


def put_weights(proxy: Proxy, weights: bytes) -> None:
    """Put the weights of a checkpoint into the model."""
    state = torch.load(io.BytesIO(weights), weights_only=True, map_location=proxy.device)
    parameters = dict(proxy.model.named_parameters())
    with torch.no_grad():
        for name, value in state.items():
            parameters[name].copy_(value)


def _packed(value: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()
