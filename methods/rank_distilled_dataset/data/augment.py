"""Augmentations of a batch of images: DSA, mixup and cutmix. Labels are never mixed.

Each operation is a function of explicit parameters; `Augment` draws them. Images are
[B, channels, height, width], normalised. The draws use a CPU generator, so a GPU sees the same.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

AugmentName = Literal["none", "dsa", "mixup", "cutmix"]
DSA_OPERATIONS: tuple[str, ...] = ("scale", "rotate", "flip", "color", "crop", "cutout")
DSA_STRENGTHS = {
    "flip": 0.5,
    "rotate": 15.0,
    "saturation": 2.0,
    "brightness": 1.0,
    "contrast": 0.5,
    "scale": 1.2,
    "crop": 0.125,
    "cutout": 0.5,
}


def warp(x: Tensor, theta: Tensor) -> Tensor:
    """Resample each image by its affine matrix; theta is [B, 2, 3], outside is 0."""
    grid = functional.affine_grid(theta.to(x), list(x.shape), align_corners=True)
    return functional.grid_sample(x, grid, align_corners=True)


def scale(x: Tensor, across: Tensor, down: Tensor) -> Tensor:
    """Shrink each image by a factor along its width and one along its height, [B] each."""
    theta = torch.zeros(len(x), 2, 3)
    theta[:, 0, 0], theta[:, 1, 1] = across, down
    return warp(x, theta)


def rotate(x: Tensor, angle: Tensor) -> Tensor:
    """Rotate each image by its angle in radians, [B]."""
    theta = torch.zeros(len(x), 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = torch.cos(angle)
    theta[:, 0, 1], theta[:, 1, 0] = -torch.sin(angle), torch.sin(angle)
    return warp(x, theta)


def color(x: Tensor, shift: Tensor, saturation: Tensor, contrast: Tensor) -> Tensor:
    """Add `shift`; then scale around each pixel's mean; then around each image's mean. [B] each."""
    shift, saturation, contrast = (
        v.to(x).reshape(-1, 1, 1, 1) for v in (shift, saturation, contrast)
    )
    x = x + shift
    mean = x.mean(dim=1, keepdim=True)
    x = (x - mean) * saturation + mean
    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    return (x - mean) * contrast + mean


def crop(x: Tensor, down: Tensor, across: Tensor) -> Tensor:
    """Shift each image by whole pixels, [B] each; what comes in from outside is 0."""
    height, width = x.shape[2:]
    rows = (torch.arange(height) + down.reshape(-1, 1) + 1).clamp(0, height + 1).to(x.device)
    columns = (torch.arange(width) + across.reshape(-1, 1) + 1).clamp(0, width + 1).to(x.device)
    batch = torch.arange(len(x), device=x.device)[:, None, None]
    padded = functional.pad(x, (1, 1, 1, 1)).permute(0, 2, 3, 1)
    return padded[batch, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def cutout(x: Tensor, row: Tensor, column: Tensor, size: tuple[int, int]) -> Tensor:
    """Set a box around (row, column), [B] each, to 0; the box is clipped at the border."""
    kept = []
    for centre, length, side in ((row, x.shape[2], size[0]), (column, x.shape[3], size[1])):
        first = (centre - side // 2).clamp(0, length - 1).reshape(-1, 1)
        last = (centre - side // 2 + side - 1).clamp(0, length - 1).reshape(-1, 1)
        places = torch.arange(length)
        kept.append((places >= first) & (places <= last) & (side > 0))
    mask = ~(kept[0][:, None, :, None] & kept[1][:, None, None, :])
    return x * mask.to(x)


def mixup(x: Tensor, share: float, order: Tensor) -> Tensor:
    """share * x + (1 - share) * x[order]: one share for the batch."""
    return share * x + (1 - share) * x[order]


def cut_box(
    height: int, width: int, share: float, row: int, column: int
) -> tuple[int, int, int, int]:
    """The box of cutmix around a point: first row, first column, end row, end column."""
    side = math.sqrt(1 - share)
    half_rows, half_columns = int(height * side) // 2, int(width * side) // 2
    return (
        max(row - half_rows, 0),
        max(column - half_columns, 0),
        min(row + half_rows, height),
        min(column + half_columns, width),
    )


def cutmix(x: Tensor, order: Tensor, box: tuple[int, int, int, int]) -> Tensor:
    """Take one box of all images from x[order]."""
    top, left, bottom, right = box
    mixed = x.clone()
    mixed[:, :, top:bottom, left:right] = x[order, :, top:bottom, left:right]
    return mixed


@dataclass(frozen=True)
class Augment:
    """A drawn augmentation.

    Attributes:
        name: `dsa` (Zhao and Bilen 2021), `mixup`, `cutmix`, or `none`.
        strengths: of DSA; those not given are the field's.
        mode: `S` applies one of the six operations of DSA to a batch, `M` all of them.
        beta: both parameters of the Beta distribution of the share (mixup, cutmix).
        siamese: DSA with the same parameters for all images of a batch.
    """

    name: AugmentName = "none"
    strengths: dict[str, float] = field(default_factory=dict)
    mode: Literal["S", "M"] = "S"
    beta: float = 1.0
    siamese: bool = False

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Augment a batch with parameters drawn from a CPU generator."""
        if self.name == "none":
            return x
        if self.name == "dsa":
            return self._dsa(x, generator)
        order = torch.randperm(len(x), generator=generator)
        # The ratio of two gammas is the Beta distribution, from the one generator of the run.
        gammas = torch._standard_gamma(
            torch.tensor([self.beta, self.beta], dtype=torch.float64), generator=generator
        )
        total = float(gammas.sum())
        share = float(gammas[0]) / total if total > 0 else 0.5
        if self.name == "mixup":
            return mixup(x, share, order.to(x.device))
        point = [int(torch.randint(n, (1,), generator=generator)) for n in x.shape[2:]]
        return cutmix(x, order.to(x.device), cut_box(x.shape[2], x.shape[3], share, *point))

    def _dsa(self, x: Tensor, generator: torch.Generator) -> Tensor:
        chosen = DSA_OPERATIONS
        if self.mode == "S":
            pick = int(torch.randint(len(DSA_OPERATIONS), (1,), generator=generator))
            chosen = DSA_OPERATIONS[pick : pick + 1]
        for operation in chosen:
            x = self.apply(operation, x, generator)
        return x

    def apply(self, operation: str, x: Tensor, generator: torch.Generator) -> Tensor:
        """One operation of DSA, with parameters of its own for each image."""
        strength = {**DSA_STRENGTHS, **self.strengths}
        count, (height, width) = len(x), x.shape[2:]
        drawn = 1 if self.siamese else count

        def uniform() -> Tensor:
            return torch.rand(drawn, generator=generator).expand(count)

        def integer(low: int, high: int) -> Tensor:
            return torch.randint(low, high, (drawn,), generator=generator).expand(count)

        if operation == "scale":
            most = strength["scale"]
            across, down = (uniform() * (most - 1 / most) + 1 / most for _ in range(2))
            return scale(x, across, down)
        if operation == "rotate":
            return rotate(x, (uniform() - 0.5) * 2 * strength["rotate"] / 180 * math.pi)
        if operation == "flip":
            flipped = (uniform() < strength["flip"]).to(x.device).reshape(-1, 1, 1, 1)
            return torch.where(flipped, x.flip(3), x)
        if operation == "color":
            shift = (uniform() - 0.5) * strength["brightness"]
            saturation = uniform() * strength["saturation"]
            return color(x, shift, saturation, uniform() + strength["contrast"])
        if operation == "crop":
            rows, columns = (int(n * strength["crop"] + 0.5) for n in (height, width))
            down = integer(-rows, rows + 1)
            return crop(x, down, integer(-columns, columns + 1))
        size = int(height * strength["cutout"] + 0.5), int(width * strength["cutout"] + 0.5)
        row = integer(0, height + (1 - size[0] % 2))
        return cutout(x, row, integer(0, width + (1 - size[1] % 2)), size)
