"""The published penalty on the overlap, as a term of the training loss."""

from __future__ import annotations

from typing import Literal

import torch

from methods.align_safety.overlap.directions import Leading

Side = Literal["column", "row", "both"]
_FLOOR = 1e-8


def span(found: Leading, side: Side, weighted: bool, normalise: bool) -> dict[str, torch.Tensor]:
    """What the penalty multiplies the update by: C (k, m) from the left, R (n, k) from the right.

    Args:
        weighted: direction i counts by its singular value.
        normalise: weighted directions are divided by the norm of the singular values.
    """
    values = found.values if weighted else torch.ones_like(found.values)
    if weighted and normalise:
        values = values / values.norm()
    spans = {}
    if side in ("column", "both"):
        spans["left"] = (found.left * values).T.contiguous()
    if side in ("row", "both"):
        spans["right"] = (found.right * values).contiguous()
    return spans


def overlap_penalty(
    a: torch.Tensor, b: torch.Tensor, spans: dict[str, torch.Tensor], normalise: bool
) -> torch.Tensor:
    """The penalty of one module with D = B A, without the adapter's scale.

    Column ||C D||^2, row ||D R||^2, both ||C D R||^2; `normalise` divides by ||D||^2 + 1e-8. Never
    forms D: norms of products of thin factors.

    Args:
        a: (r, n). b: (m, r). spans: see `span`, of the factors' type.
    """
    left = spans["left"] @ b if "left" in spans else b
    right = a @ spans["right"] if "right" in spans else a
    value = _squared_norm(left, right)
    return value / (_squared_norm(b, a) + _FLOOR) if normalise else value


def _squared_norm(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """||left right||^2 = <left^T left, right right^T>."""
    return ((left.T @ left) * (right @ right.T)).sum()
