"""Optimisers and learning-rate schedules of the field."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import Tensor, nn

OptimiserName = Literal["sgd", "adam", "adamw"]
ScheduleName = Literal["step", "cosineannealing", "cosine"]


def make_optimiser(
    name: OptimiserName,
    parameters: Iterable[nn.Parameter],
    lr: float | Tensor,
    weight_decay: float,
    momentum: float,
) -> torch.optim.Optimizer:
    """SGD with (non-Nesterov) momentum, or Adam and AdamW with betas .9 and .999.

    Args:
        lr: a tensor on the device of the parameters where a CUDA graph has to find its value.
    """
    # One kernel for all tensors; the same arithmetic as the loop over tensors.
    if name == "sgd":
        return torch.optim.SGD(
            parameters, lr=lr, momentum=momentum, weight_decay=weight_decay, fused=True
        )
    kind = torch.optim.Adam if name == "adam" else torch.optim.AdamW
    replayed = isinstance(lr, Tensor)
    return kind(parameters, lr=lr, weight_decay=weight_decay, fused=True, capturable=replayed)


def set_rate(group: dict[str, Any], lr: float) -> None:
    """Give a parameter group its learning rate, in place where that is a tensor."""
    if isinstance(group["lr"], Tensor):
        group["lr"].fill_(lr)
    else:
        group["lr"] = lr


def rate(
    name: ScheduleName,
    epoch: int,
    epochs: int,
    step_size: int | None = None,
    gamma: float = 0.1,
) -> float:
    """The factor on the base learning rate during an epoch (0-based).

    `step`: gamma to the power of epoch // step_size. `cosineannealing`: a half cosine from 1 to 0.
    `cosine`: the quirk of SRe2L's code, a quarter cosine that ends at 1/2 and is 0 afterwards.

    Raises:
        ValueError: `step` without a step_size.
    """
    if name == "step":
        if step_size is None:
            raise ValueError("the schedule `step` needs step_size")
        return gamma ** (epoch // step_size)
    if name == "cosineannealing":
        return (1 + math.cos(math.pi * epoch / epochs)) / 2
    return (1 + math.cos(math.pi * epoch / epochs / 2)) / 2 if epoch <= epochs else 0.0
