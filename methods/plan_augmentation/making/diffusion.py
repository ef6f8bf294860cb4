"""A class-conditional diffusion model of pixels: how it is made, trained upon, and sampled."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import DDIMScheduler, DDPMScheduler, UNet2DModel
from torch import Tensor
from torch.nn import functional

from methods.plan_augmentation.settings import TrainedGenerator
from methods.seeds import derived_seed

#: Steps of the noise that it learns to take away.
_NOISE_STEPS = 200


@dataclass(frozen=True)
class Sizes:
    """What images go through it: padded to `side`, a square that its levels can halve."""

    channels: int
    height: int
    width: int
    side: int

    @classmethod
    def of(cls, shape: Sequence[int], levels: int) -> Sizes:
        """For images of a shape (C, H, W)."""
        step = 1 << (levels - 1)
        side = math.ceil(max(shape[1:]) / step) * step
        return cls(shape[0], shape[1], shape[2], side)

    def padded(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) with their border repeated."""
        down, right = self.side - self.height, self.side - self.width
        return functional.pad(images, (0, right, 0, down), mode="replicate")

    def cut(self, images: Tensor) -> Tensor:
        """The images alone."""
        return images[:, :, : self.height, : self.width]


def model_of(recipe: TrainedGenerator, sizes: Sizes, classes: int, seed: int) -> Any:
    """A new model, drawn from `seed` alone."""
    levels = len(recipe.channels)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        kind: Any = UNet2DModel
        return kind(
            sample_size=sizes.side,
            in_channels=sizes.channels,
            out_channels=sizes.channels,
            block_out_channels=tuple(recipe.channels),
            down_block_types=("DownBlock2D",) * levels,
            up_block_types=("UpBlock2D",) * levels,
            layers_per_block=1,
            norm_num_groups=8,
            num_class_embeds=classes,
        )


def noise_schedule() -> Any:
    """The noise of its training."""
    kind: Any = DDPMScheduler
    return kind(num_train_timesteps=_NOISE_STEPS)


def denoised(
    model: Any,
    sources: Tensor,
    labels: Tensor,
    strengths: Sequence[float],
    seeds: Sequence[int],
    steps: int,
) -> Tensor:
    """Sources noised by their strengths and denoised from there.

    An image depends on its source, label, strength and seed alone: images of other strengths run
    beside it, from another step on, and noise is drawn on the CPU for each by itself.

    Args:
        sources: (N, C, S, S) from -1 to 1. labels: (N,). steps: from pure noise.

    Returns:
        (N, C, S, S).
    """
    kind: Any = DDIMScheduler
    scheduler = kind(num_train_timesteps=_NOISE_STEPS)
    scheduler.set_timesteps(steps)
    times = scheduler.timesteps
    noise = torch.stack(
        [torch.randn(sources.shape[1:], generator=torch.Generator().manual_seed(s)) for s in seeds]
    ).to(sources.device)
    first = [len(times) - min(steps, int(strength * steps)) for strength in strengths]
    state = torch.stack(
        [
            scheduler.add_noise(source[None], own[None], times[begin].reshape(1))[0]
            for source, own, begin in zip(sources, noise, first, strict=True)
        ]
    )
    with torch.inference_mode():
        for place, time in enumerate(times):
            going = torch.tensor([begin <= place for begin in first], device=state.device)
            if not going.any():
                continue
            guess = model(state[going], time, class_labels=labels[going]).sample
            state[going] = scheduler.step(guess, time, state[going]).prev_sample
    return state


def image_seed(seed: int, row: int, copy: int) -> int:
    """The seed of an image: of no shard, batch or factor."""
    return derived_seed("augment", seed, row, copy)
