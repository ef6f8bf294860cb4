"""Leading singular directions of a weight matrix."""

from __future__ import annotations

from dataclasses import dataclass

import torch

#: Entries up to which everything is float64 and by SVD; above, Gram matrices: float32 products of
#: blocks of columns, added up in float64.
SMALL = 1 << 22
_BLOCK = 1_024
_OVERSAMPLED, _MOST_ROUNDS, _SETTLED = 16, 12, 1e-4


@dataclass(frozen=True)
class Leading:
    """The k leading directions of a matrix (m, n).

    Attributes:
        left: (m, k), right: (n, k), orthonormal, float64. values: (k,) singular values.
    """

    left: torch.Tensor
    values: torch.Tensor
    right: torch.Tensor


def leading(weight: torch.Tensor, k: int, sketch: bool = False) -> Leading:
    """The k leading singular directions.

    Args:
        weight: (m, n). k: up to min(m, n).
        sketch: for matrices that are not small by subspace iteration, until the values settle to
            1e-4 (at most 12 rounds); else exact.
    """
    if weight.numel() <= SMALL:
        return _by_svd(weight, k)
    if sketch:
        return _by_iteration(weight, k)
    rows, columns = weight.shape
    if rows > columns:
        found = leading(weight.T, k)
        return Leading(found.right, found.values, found.left)
    squares, vectors = torch.linalg.eigh(gram(weight))
    values = squares[-k:].flip(0).clamp(min=0).sqrt()
    if float(values[-1]) < 1e-6 * float(values[0]):
        # So far down a Gram matrix has lost the digits.
        return _by_svd(weight, k)
    left = vectors[:, -k:].flip(1)
    right, upper = torch.linalg.qr(product(weight.T, left) / values)
    # QR may turn columns round.
    return Leading(left, values, right * torch.where(upper.diagonal() < 0, -1.0, 1.0))


def gram(weight: torch.Tensor) -> torch.Tensor:
    """(m, m) weight weight^T in float64."""
    if weight.numel() <= SMALL or weight.dtype == torch.float64:
        return weight.double() @ weight.double().T
    total = torch.zeros(weight.shape[0], weight.shape[0], dtype=torch.float64)
    for start in range(0, weight.shape[1], _BLOCK):
        block = weight[:, start : start + _BLOCK].float()
        total += (block @ block.T).double()
    return total


def product(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """one @ other in float64: blocks of the inner dimension in float32 where it is large."""
    if one.numel() <= SMALL or one.dtype == torch.float64:
        return one.double() @ other.double()
    total = torch.zeros(one.shape[0], other.shape[1], dtype=torch.float64)
    for start in range(0, one.shape[1], _BLOCK):
        part = slice(start, start + _BLOCK)
        total += (one[:, part].float() @ other[part].float()).double()
    return total


def _by_svd(weight: torch.Tensor, k: int) -> Leading:
    left, values, right = torch.linalg.svd(weight.double(), full_matrices=False)
    return Leading(left[:, :k], values[:k], right[:k].T)


def _by_iteration(weight: torch.Tensor, k: int) -> Leading:
    generator = torch.Generator().manual_seed(0)
    width = min(k + _OVERSAMPLED, *weight.shape)
    weight = weight.float()
    basis = torch.randn(weight.shape[1], width, generator=generator)
    before = None
    for _ in range(_MOST_ROUNDS):
        left = torch.linalg.qr(weight @ basis).Q
        basis, small = torch.linalg.qr(weight.T @ left)
        values = torch.linalg.svdvals(small)[:k]
        if before is not None and float((values - before).abs().max() / values[0]) < _SETTLED:
            break
        before = values
    left = torch.linalg.qr(weight @ basis).Q
    core = left.T @ weight
    inner, values, right = torch.linalg.svd(core.double(), full_matrices=False)
    return Leading((left.double() @ inner)[:, :k], values[:k], right[:k].T)
