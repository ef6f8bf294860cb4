"""Runs `pretrain-projector-run`: trains one projector, and measures it on held-out captions."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from methods.context import RunContext
from methods.errors import JobError
from methods.finetuning.loop import Loop
from methods.finetuning.schedule import Plan, row_order
from methods.inference.image_text_model import image_text_model
from methods.inference.projector import WEIGHTS, save_projector, tensors_of
from methods.pretrain_projector.child_jobs import TENSORS, Measured, RunMade, RunPart
from methods.pretrain_projector.penalty import alpha_of
from methods.pretrain_projector.settings import LEAST_WARMUP
from methods.pretrain_projector.training.captions import Captions
from methods.pretrain_projector.training.frozen import Frozen
from methods.pretrain_projector.training.looking import gap_of, losses_of, others, written
from methods.pretrain_projector.training.loss import parts_of, spread
from methods.results import ArtifactRef
from methods.resume import ResumeStore
from methods.seeds import derived_seed
from methods.typing import IntArray

#: Times that the state of a training is kept.
_KEPT = 20


def run(spec: RunPart, ctx: RunContext) -> RunMade:
    """Train a projector; see `RunPart` and `RunMade`."""
    frozen = Frozen.of(image_text_model(ctx.models, spec.model), spec)
    if spec.start == "reinitialise":
        reinitialise(frozen.projector, derived_seed(spec.seed, "projector"))
    captions = Captions(spec, frozen, ctx)
    if len(captions.held) < 2 or len(captions.train) < 2:
        raise JobError(
            "input_invalid",
            f"captions: {len(captions.train):,} to train on and {len(captions.held):,} held out; "
            "two of each are needed. Bring more captions, or change held_out.",
        )
    training = _Training(spec, frozen, captions, ctx)
    training.run()
    frozen.projector.eval()
    size, held = spec.per_device_train_batch_size, captions.held
    ctx.progress("measuring", 0, 1, "runs")
    gap = gap_of(frozen, captions, _some(held, spec), size, ctx.check)
    losses, tokens = losses_of(frozen, captions, held, held.tolist(), size, ctx.check)
    rng = np.random.default_rng(derived_seed(spec.split_seed, "others"))
    shuffled, _ = losses_of(frozen, captions, held, others(captions, held, rng), size, ctx.check)
    lines = "".join(json.dumps(one) + "\n" for one in training.history)
    ctx.save_artifact("training.jsonl", lines.encode(), "application/x-ndjson")
    return RunMade(
        steps=training.loop.steps,
        rows_a_step=training.plan.rows,
        trained_on=len(captions.train),
        cut=captions.cut,
        alpha=training.alpha,
        losses=losses,
        tokens=tokens,
        shuffled=shuffled,
        exact=written(frozen, captions, held, size, ctx.check),
        variance_ratio=training.history[-1]["variance_ratio"],
        input=gap.input,
        mir=gap.mir,
        measured=[Measured.model_validate(one) for one in training.measured],
        model=_save(spec, frozen, ctx),
        versions={name: version(name) for name in ("torch", "transformers")},
    )


def reinitialise(projector: nn.Module, seed: int) -> None:
    """New tensors, as its modules make them: the same for the same seed."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for module in projector.modules():
            reset = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()


def _some(held: IntArray, spec: RunPart) -> IntArray:
    """The held-out pairs that the gap is of, the same in all runs."""
    rng = np.random.default_rng(derived_seed(spec.split_seed, "measured"))
    most = min(spec.measure.n_pairs, len(held))
    return np.sort(rng.choice(held, most, replace=False))


class _Training:
    """Trains the projector, with what is known of every step.

    Attributes:
        alpha: None before the warm-up is over, and without a penalty.
        history: of every step. measured: gaps by step.
    """

    def __init__(self, spec: RunPart, frozen: Frozen, captions: Captions, ctx: RunContext) -> None:
        self._spec, self._frozen, self._captions, self._ctx = spec, frozen, captions, ctx
        count = len(captions.train)
        self.plan = Plan(
            epochs=spec.num_train_epochs,
            checkpoints=_KEPT,
            rows=spec.rows_a_step(count),
            learning_rate=spec.learning_rate,
            warmup=spec.warmup_ratio,
            weight_decay=spec.weight_decay,
            seed=spec.seed,
        )
        self._store = ResumeStore(ctx, spec.model_dump_json())
        names = [name for name, _ in frozen.projector.named_parameters()]
        self.loop: Loop[IntArray] = Loop(frozen.projector, names, count, self.plan, self._store)
        self.history: list[dict[str, Any]] = []
        self.measured: list[dict[str, Any]] = []
        self.warmup = self._warmup()
        self.alpha = None if spec.penalty is None else spec.penalty.alpha
        self._resume()

    def _warmup(self) -> int | None:
        """Steps in which alpha is found."""
        penalty, steps = self._spec.penalty, self.loop.steps
        if penalty is None or penalty.alpha is not None:
            return None
        own = penalty.warmup_steps
        found = own or max(LEAST_WARMUP, math.ceil(self._spec.warmup_ratio * steps))
        if found >= steps:
            raise JobError(
                "input_invalid",
                f"The training has {steps:,} steps and alpha needs a warm-up of {found:,} before "
                "the penalty counts: raise num_train_epochs, lower gradient_accumulation_steps or "
                "per_device_train_batch_size, or give alpha as a number.",
            )
        return found

    def run(self) -> None:
        """Train, from where an earlier attempt was."""
        done = self.loop.done
        self.loop.run(self._batches(done), self._backward, self._tell, self._metric)
        if not self.measured or self.measured[-1]["step"] != self.loop.steps:
            self._measure(self.loop.steps)

    def _batches(self, done: int) -> Iterator[IntArray]:
        count = len(self._captions.train)
        for step, rows in enumerate(islice(row_order(self.plan, count), done, None), start=done):
            if step % self._spec.measure.every == 0:
                self._measure(step)
            yield self._captions.train[rows]

    def _backward(self, places: IntArray) -> float:
        spec, frozen = self._spec, self._frozen
        size = spec.per_device_train_batch_size
        step = len(self.history)
        weight = self._weight(step)
        kind = None if spec.penalty is None else spec.penalty.kind
        batches = [
            self._captions.batch(places[start : start + size])
            for start in range(0, len(places), size)
        ]
        tokens = sum(int(one.mask.sum()) for one in batches)
        loss = penalty = 0.0
        images, texts = [], []
        for batch in batches:
            self._ctx.check()
            found = parts_of(frozen, batch, kind)
            own = found.losses.sum() / tokens
            total = own
            loss += float(own.detach())
            if found.penalties is not None:
                # Of each caption, then the mean over the whole step.
                one = found.penalties.sum() / len(places)
                total = own + weight * one
                penalty += float(one.detach())
            total.backward()
            images.append(found.image.detach().flatten(0, 1).float())
            texts.append(found.text[batch.words].float())
        v, t = torch.cat(images), torch.cat(texts)
        entry: dict[str, Any] = {
            "step": step,
            "loss": loss,
            "penalty": penalty if kind else None,
            "alpha": self.alpha,
            "norm_v": float(v.norm(dim=1).mean()),
            "norm_t": float(t.norm(dim=1).mean()),
            "variance_ratio": spread(v) / max(spread(t), 1e-30),
        }
        self.history.append(entry)
        for name in ("penalty", "variance_ratio"):
            if entry[name] is not None and math.isfinite(entry[name]):
                self._ctx.metric(name, entry[name], step)
        if step + 1 in self.loop.marks:
            # Before the weights: what is there of later steps is done again.
            kept = {"history": self.history, "measured": self.measured}
            self._store.keep("history", json.dumps(kept).encode())
        return loss + weight * penalty

    def _weight(self, step: int) -> float:
        """What the penalty is multiplied by at a step; alpha is fixed once the warm-up is over."""
        penalty = self._spec.penalty
        if penalty is None or (self.warmup is not None and step < self.warmup):
            return 0.0
        if self.alpha is None:
            self.alpha = self._found_alpha()
        return penalty.weight * self.alpha

    def _found_alpha(self) -> float:
        first = self.history[: self.warmup]
        return alpha_of([one["loss"] for one in first], [one["penalty"] for one in first])

    def _resume(self) -> None:
        done = self.loop.done
        if not done:
            return
        data = self._store.find("history")
        if data is None:
            raise JobError("internal", "What was known of earlier steps is gone.")
        kept = json.loads(data)
        self.history = kept["history"][:done]
        self.measured = [one for one in kept["measured"] if one["step"] < done]
        if self.alpha is None and self.warmup is not None and done > self.warmup:
            # Of the same figures as before: it is fixed over restarts.
            self.alpha = self._found_alpha()

    def _measure(self, step: int) -> None:
        spec = self._spec
        held = _some(self._captions.held, spec)
        size = spec.per_device_train_batch_size
        gap = gap_of(self._frozen, self._captions, held, size, self._ctx.check)
        now: dict[str, Any] = {
            "step": step,
            "fid": gap.input.fid,
            "centroid": gap.input.centroid_l2_text_scaled,
            "norm_ratio": gap.input.norm_ratio,
            "mir": gap.mir,
        }
        self.measured.append(now)
        for name in ("fid", "mir"):
            if now[name] is not None:
                self._ctx.metric(f"gap_{name}", now[name], step)

    def _tell(self, step: int, steps: int) -> None:
        self._ctx.progress("training", step, steps, "steps")

    def _metric(self, name: str, value: float, step: int) -> None:
        if math.isfinite(value):
            self._ctx.metric(name, value, step)


def _save(spec: RunPart, frozen: Frozen, ctx: RunContext) -> ArtifactRef:
    """The projector, and what other jobs take as a model."""
    folder = ctx.workdir / "projector"
    name = str(spec.model)
    save_projector(frozen.path, frozen.projector, name, folder)
    ctx.save_artifact(TENSORS, folder / WEIGHTS, "application/octet-stream")
    # Of a model that a job made there is no name for a projector to be of.
    if spec.whole or ctx.models.is_made(spec.model):
        folder = ctx.workdir / "whole"
        _save_whole(frozen, folder)
        return ctx.save_model("model", folder)
    return ctx.save_model("model", folder, name)


def _save_whole(frozen: Frozen, folder: Path) -> None:
    model = frozen.model.model
    own = tensors_of(frozen.path, frozen.projector)
    trained = {name: value.to(model.dtype) for name, value in own.items()}
    # The model itself is shared and keeps the projector that it has.
    model.save_pretrained(folder, state_dict=model.state_dict() | trained)
    frozen.model.processor.save_pretrained(folder)
