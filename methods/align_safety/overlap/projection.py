"""Takes an update off the leading directions of its weights, exactly and at the same rank."""

from __future__ import annotations

import math
from typing import Literal

import torch

from methods.align_safety.overlap.directions import Leading
from methods.align_safety.overlap.measures import Factors

Side = Literal["column", "row", "both"]


def project_factors(
    a: torch.Tensor, b: torch.Tensor, found: Leading, side: Side, rescale: bool = False
) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Project a LoRA's factors: B' = B - U (U^T B), A' = A - (A V) V^T.

    Args:
        a: (r, n). b: (m, r).
        side: `column`: (I - U U^T) dW; `row`: dW (I - V V^T); `both`.
        rescale: the norm of dW stays as it was.

    Returns:
        A' and B' in float64, of the same rank, and the share of ||dW||^2 that is kept.
    """
    a, b = a.double(), b.double()
    before = Factors(a, b, 1.0).squared_norm()
    if side in ("column", "both"):
        b = b - found.left @ (found.left.T @ b)
    if side in ("row", "both"):
        a = a - (a @ found.right) @ found.right.T
    after = Factors(a, b, 1.0).squared_norm()
    if rescale and after > 0:
        b = b * math.sqrt(before / after)
    return a, b, after / before if before else 1.0


def project_full(
    update: torch.Tensor, found: Leading, side: Side | Literal["block"]
) -> torch.Tensor:
    """The same of an update (m, n) as a matrix; `block` takes off U U^T dW V V^T alone."""
    update = update.double()
    left, right = found.left, found.right
    if side == "block":
        return update - left @ (left.T @ update @ right) @ right.T
    if side in ("column", "both"):
        update = update - left @ (left.T @ update)
    if side in ("row", "both"):
        update = update - (update @ right) @ right.T
    return update
