"""The distance of `factors`, for optimisation: differentiable, of many groups at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from scipy import sparse

from methods.synthesize_text.gradients.factors import Target

Kind = Literal["cos", "l2"]


@dataclass(frozen=True)
class MatchTarget:
    """A target on the device of the model.

    Attributes:
        a: (n, k) outputs, h: (n, d), weights: (n,). support: the k outputs that `a` has entries at;
            None for all. norm, norm_bias: of the target's gradient of W and of the bias.
    """

    a: torch.Tensor
    h: torch.Tensor
    weights: torch.Tensor
    support: torch.Tensor | None
    norm: float
    norm_bias: float

    @classmethod
    def of(cls, target: Target, device: Any) -> MatchTarget:
        """The target of a job."""
        given, support = target.factors.a, None
        if sparse.issparse(given):
            columns = np.unique(given.indices)
            given = given[:, columns].toarray()
            support = torch.tensor(columns, device=device)

        def there(values: Any) -> torch.Tensor:
            return torch.tensor(np.asarray(values, dtype=np.float32), device=device)

        return cls(
            there(given),
            there(target.factors.h),
            there(target.weights),
            support,
            target.norm,
            target.norm_bias,
        )


def group_distances(
    a: torch.Tensor, h: torch.Tensor, target: MatchTarget, bias: bool = False, kind: Kind = "cos"
) -> torch.Tensor:
    """(S,) the distance of the mean gradient of each group and the target; see `set_distance`.

    Args:
        a: (S, r, V) pulls at the outputs. h: (S, r, d) last hidden states.
        bias: the mean with the distance of the bias gradients.
        kind: `cos`, 1 - cosine; `l2`, the squared norm of the difference (with a bias: their sum).
    """
    groups, size = a.shape[:2]
    shared = a if target.support is None else a[..., target.support]
    outputs = shared.reshape(groups * size, -1) @ target.a.T
    along = outputs * (h.reshape(groups * size, -1) @ target.h.T)
    own = a @ a.transpose(1, 2)
    pairs = [
        (
            (along @ target.weights).view(groups, size).sum(dim=1) / size,
            (own * (h @ h.transpose(1, 2))).sum(dim=(1, 2)) / size**2,
            target.norm,
        )
    ]
    if bias:
        mean = (outputs @ target.weights).view(groups, size).sum(dim=1) / size
        pairs.append((mean, own.sum(dim=(1, 2)) / size**2, target.norm_bias))
    if kind == "l2":
        parts = [square - 2 * inner + norm**2 for inner, square, norm in pairs]
        return torch.stack(parts).sum(dim=0)
    parts = [1 - inner / (square.clamp(min=0).sqrt() * norm) for inner, square, norm in pairs]
    return torch.stack(parts).mean(dim=0)
