"""Images with their labels, as trainings take them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Examples:
    """Images [N, C, H, W], float32, with labels.

    Attributes:
        labels: classes [N], int64.
        targets: soft targets as logits [N, classes], or None.
    """

    images: Tensor
    labels: Tensor
    targets: Tensor | None = None

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """Images, labels and soft targets."""
        return self.images, self.labels, self.targets

    def to(self, device: torch.device) -> Examples:
        """The same on a device; nothing is copied when it is there."""
        targets = None if self.targets is None else self.targets.to(device)
        return Examples(self.images.to(device), self.labels.to(device), targets)


def without_targets(data: Examples) -> Examples:
    """The same images with hard labels only."""
    return Examples(data.images, data.labels)
