"""Losses of hard and soft labels, as data-set distillation defines them.

All take student logits [B, classes] and give a scalar. Soft targets are logits, never
probabilities: both sides go through a softmax (Hinton et al. 2015).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def kl_divergence(
    student: Tensor, target: Tensor, temperature: float = 1.2, scale: bool = False
) -> Tensor:
    """KL(softmax(target/T) || softmax(student/T)), mean over the batch; times T^2 if `scale`."""
    loss = functional.kl_div(
        functional.log_softmax(student / temperature, dim=1),
        functional.softmax(target / temperature, dim=1),
        reduction="batchmean",
    )
    return loss * temperature**2 if scale else loss


def soft_cross_entropy(
    student: Tensor, target: Tensor, temperature: float = 1.2, scale: bool = False
) -> Tensor:
    """Cross entropy with softmax(target/T), mean over the batch; times T^2 if `scale`."""
    weights = functional.softmax(target / temperature, dim=1)
    loss = -(weights * functional.log_softmax(student / temperature, dim=1)).sum(dim=1).mean()
    return loss * temperature**2 if scale else loss


def mse_with_labels(
    student: Tensor,
    target: Tensor,
    labels: Tensor,
    mse_weight: float = 1.0,
    ce_weight: float = 0.0,
) -> Tensor:
    """Mean squared difference of the logits plus cross entropy with hard labels (EDC, G-VBSM)."""
    loss = mse_weight * functional.mse_loss(student, target)
    return loss + ce_weight * functional.cross_entropy(student, labels) if ce_weight else loss


def probabilities_to_logits(probabilities: Tensor) -> Tensor:
    """Logits whose softmax is the given distribution; zeros become the smallest float32."""
    return torch.log(probabilities.clamp_min(torch.finfo(torch.float32).tiny))
