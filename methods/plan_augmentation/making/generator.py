"""Runs `plan-augmentation-generator`: trains a diffusion model of the training images."""

from __future__ import annotations

import io
import time
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional

from methods.context import RunContext
from methods.errors import JobError
from methods.plan_augmentation.child_jobs import GeneratorMade, GeneratorPart
from methods.plan_augmentation.making.diffusion import Sizes, model_of, noise_schedule
from methods.rank_distilled_dataset.data import datasets
from methods.rank_distilled_dataset.training.session import one_thread
from methods.resume import ResumeStore
from methods.seeds import derived_seed

#: The weights that sample are a moving average; early steps count less in it.
_AVERAGE = 0.999
_KEEP_EVERY = 60.0


def run(spec: GeneratorPart, ctx: RunContext) -> GeneratorMade:
    """Train it; see `GeneratorPart` and `GeneratorMade`."""
    with one_thread():
        return _run(spec, ctx)


def _run(spec: GeneratorPart, ctx: RunContext) -> GeneratorMade:
    real = datasets.load(spec.dataset, ctx)
    device = torch.device("cuda" if spec.device == "gpu" else "cpu")
    sizes = Sizes.of(real.shape, len(spec.channels))
    unit = torch.from_numpy(real.shown(real.train.images.numpy()))
    images = sizes.padded(unit * 2 - 1).to(device)
    labels = real.train.labels.to(device)
    model = model_of(spec, sizes, len(real.classes), derived_seed(spec.seed, "generator"))
    model.to(device)
    training = _Training(spec, model, ctx)
    while training.done < spec.steps:
        ctx.progress("training the generator", training.done, spec.steps, "steps")
        training.step(images, labels)
        training.keep_now_and_then()
    weights = {name: value.cpu().contiguous() for name, value in training.average.items()}
    file = ctx.save_artifact("generator.safetensors", save(weights), "application/octet-stream")
    return GeneratorMade(file=file.id)


class _Training:
    """The training on its way: a step depends on the seed, its number and the weights alone."""

    def __init__(self, spec: GeneratorPart, model: nn.Module, ctx: RunContext) -> None:
        self._spec, self._model, self._ctx = spec, model, ctx
        self._schedule = noise_schedule()
        self._optimiser = torch.optim.AdamW(model.parameters(), lr=spec.lr, weight_decay=0.0)
        self.average = {name: one.detach().clone() for name, one in model.state_dict().items()}
        self.losses: list[float] = []
        self._store = ResumeStore(ctx, spec.model_dump_json())
        self._kept = time.monotonic()
        self._resume()

    @property
    def done(self) -> int:
        """Steps so far."""
        return len(self.losses)

    def step(self, images: Tensor, labels: Tensor) -> None:
        """One step."""
        draws = torch.Generator().manual_seed(derived_seed(self._spec.seed, "step", self.done))
        size = min(self._spec.batch_size, len(images))
        rows = torch.randint(len(images), (size,), generator=draws).to(images.device)
        noise = torch.randn(images[rows].shape, generator=draws).to(images.device)
        count = self._schedule.config.num_train_timesteps
        times = torch.randint(count, (size,), generator=draws).to(images.device)
        noisy = self._schedule.add_noise(images[rows], noise, times)
        guess = self._model(noisy, times, class_labels=labels[rows]).sample
        loss = functional.mse_loss(guess, noise)
        if not torch.isfinite(loss):
            raise JobError(
                "numerical_failure",
                f"The generator's loss is not finite at step {self.done}; lower generator.lr.",
            )
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self._model.parameters(), 1.0)
        self._optimiser.step()
        self.losses.append(float(loss.detach()))
        share = min(_AVERAGE, (1 + self.done) / (10 + self.done))
        for name, value in self._model.state_dict().items():
            self.average[name].lerp_(value, 1 - share)
        self._ctx.metric("generator_loss", self.losses[-1], self.done)

    def keep_now_and_then(self) -> None:
        """Keep what a later attempt goes on from."""
        if time.monotonic() - self._kept < _KEEP_EVERY:
            return
        buffer = io.BytesIO()
        torch.save(self._state(), buffer)
        self._store.keep("training", buffer.getvalue())
        self._kept = time.monotonic()

    def _state(self) -> dict[str, Any]:
        return {
            "model": self._model.state_dict(),
            "average": self.average,
            "optimiser": self._optimiser.state_dict(),
            "losses": self.losses,
        }

    def _resume(self) -> None:
        data = self._store.find("training")
        if data is None:
            return
        state = torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
        self._model.load_state_dict(state["model"])
        self._optimiser.load_state_dict(state["optimiser"])
        for name, value in state["average"].items():
            self.average[name].copy_(value)
        self.losses = state["losses"]
