"""Overlap of an update with the weights it changes: energies, null, lift, ranks.

W is (m, n) = (out, in), as torch's Linear has it; dW its update; U_k, S_k, V_k the k leading
singular directions of W. arXiv:2507.17075, with the null expectation beside every number: an update
without any direction has lift 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch

from methods.align_safety.overlap.directions import SMALL, Leading, gram, leading, product

#: Below this share of the largest, a singular value of an update is none.
_RANK_TOLERANCE = 1e-10
SIDES = ("column", "row", "both")


class Update(Protocol):
    """An update, in whichever form it is cheap."""

    shape: tuple[int, int]

    def squared_norm(self) -> float:
        """||dW||^2."""

    def singular_values(self) -> torch.Tensor | None:
        """All that are not zero, descending; None where they would cost too much."""

    def spectral(self) -> float:
        """The largest singular value."""

    def projected(self, found: Leading) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Gram matrices (k, k) of U_k^T dW and of (dW V_k)^T, and U_k^T dW V_k."""

    def against(self, weight: torch.Tensor) -> tuple[float, float, float, float]:
        """||W^T dW||^2, ||dW W^T||^2, ||W^T dW W^T||^2 and <W, dW>."""

    def affinity(self, found: Leading) -> tuple[float, float] | None:
        """Mean squared cosine of the principal angles between the leading left (right) directions
        and the column (row) space; None where it would cost too much."""


class Factors:
    """dW = scale B A of a LoRA; everything from thin products, O((m + n) r k).

    Args:
        a: (r, n). b: (m, r).
    """

    def __init__(self, a: torch.Tensor, b: torch.Tensor, scale: float) -> None:
        self.shape = (b.shape[0], a.shape[1])
        self._left, left_core = torch.linalg.qr(b.double())
        self._right, right_core = torch.linalg.qr(a.double().T)
        self._core = scale * left_core @ right_core.T

    @cached_property
    def _svd(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        left, values, right = torch.linalg.svd(self._core)
        return left, values, right

    def squared_norm(self) -> float:
        return float((self._core**2).sum())

    def singular_values(self) -> torch.Tensor | None:
        return self._svd[1]

    def spectral(self) -> float:
        return float(self._svd[1][0])

    def projected(self, found: Leading) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        left, right = found.left.T @ self._left, found.right.T @ self._right
        columns, rows = left @ self._core, self._core @ right.T
        return columns @ columns.T, rows.T @ rows, columns @ right.T

    def against(self, weight: torch.Tensor) -> tuple[float, float, float, float]:
        from_left, from_right = product(weight.T, self._left), product(weight, self._right)
        columns, rows = from_left @ self._core, from_right @ self._core.T
        # W^T dW W^T = (W^T L core) (W R)^T; its norm from two small Gram matrices.
        both = float(((columns.T @ columns) * (from_right.T @ from_right)).sum())
        inner = float((from_left.T @ self._right * self._core).sum())
        return float((columns**2).sum()), float((rows**2).sum()), both, inner

    def affinity(self, found: Leading) -> tuple[float, float] | None:
        left, values, right = self._svd
        rank = _rank(values)
        return (
            _affinity(found.left, self._left @ left[:, :rank]),
            _affinity(found.right, self._right @ right[:rank].T),
        )


class Full:
    """dW as a matrix; above 4 million entries from Gram matrices of its smaller side."""

    def __init__(self, update: torch.Tensor) -> None:
        self.shape = (update.shape[0], update.shape[1])
        self._update = update
        self._tall = self.shape[0] > self.shape[1]

    @cached_property
    def _gram(self) -> torch.Tensor:
        """Of the smaller side."""
        return gram(self._update.T if self._tall else self._update)

    @cached_property
    def _svd(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Of a small update."""
        left, values, right = torch.linalg.svd(self._update.double(), full_matrices=False)
        return left, values, right

    @cached_property
    def _values(self) -> torch.Tensor:
        if self._update.numel() <= SMALL:
            return self._svd[1]
        return torch.linalg.eigvalsh(self._gram).flip(0).clamp(min=0).sqrt()

    def squared_norm(self) -> float:
        return sum(float((row.double() ** 2).sum()) for row in self._update.split(256))

    def singular_values(self) -> torch.Tensor | None:
        return self._values

    def spectral(self) -> float:
        return float(self._values[0])

    def projected(self, found: Leading) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        columns = product(self._update.T, found.left).T
        rows = product(self._update, found.right)
        return columns @ columns.T, rows.T @ rows, columns @ found.right

    def against(self, weight: torch.Tensor) -> tuple[float, float, float, float]:
        update = self._update.T if self._tall else self._update
        weight = weight.T if self._tall else weight
        own, mixed = gram(weight), product(update, weight.T)
        near = float((own * self._gram).sum())
        far = float((mixed**2).sum())
        both = float((own @ mixed * mixed).sum())
        columns, rows = (far, near) if self._tall else (near, far)
        return columns, rows, both, float(mixed.trace())

    def affinity(self, found: Leading) -> tuple[float, float] | None:
        if self._update.numel() > SMALL:
            return None
        left, values, right = self._svd
        rank = _rank(values)
        return _affinity(found.left, left[:, :rank]), _affinity(found.right, right[:rank].T)


class Sketched(Full):
    """dW as a matrix, what needs all of W by Hutchinson's estimator.

    Args:
        probes: normal vectors. The relative error falls with their root and with the rank of the
            update: about 1.4 % with 64 of a full-rank one, 19 % of a rank-1 one.
    """

    def __init__(self, update: torch.Tensor, probes: int) -> None:
        super().__init__(update)
        self._probes = probes

    def singular_values(self) -> torch.Tensor | None:
        return self._values if self._update.numel() <= SMALL else None

    def spectral(self) -> float:
        if self._update.numel() <= SMALL:
            return super().spectral()
        return float(leading(self._update, 1, sketch=True).values[0])

    def against(self, weight: torch.Tensor) -> tuple[float, float, float, float]:
        generator = torch.Generator().manual_seed(0)
        rows, columns = self.shape
        weight, update = weight.float(), self._update.float()
        on_right = torch.randn(columns, self._probes, generator=generator)
        on_left = torch.randn(rows, self._probes, generator=generator)

        def mean(made: torch.Tensor) -> float:
            return float((made.double() ** 2).sum()) / self._probes

        through = update @ (weight.T @ on_left)
        inner = sum(
            float((one.double() * other.double()).sum())
            for one, other in zip(weight.split(256), update.split(256), strict=True)
        )
        return mean(weight.T @ (update @ on_right)), mean(through), mean(weight.T @ through), inner


def _rank(values: torch.Tensor) -> int:
    return int((values > _RANK_TOLERANCE * values[0]).sum())


def _affinity(directions: torch.Tensor, space: torch.Tensor) -> float:
    if space.shape[1] == 0:
        return 0.0
    smaller = min(directions.shape[1], space.shape[1])
    return float(((directions.T @ space) ** 2).sum()) / smaller


@dataclass(frozen=True)
class Overlap:
    """All numbers of a matrix and its update. None where undefined: a zero update, or a number
    that the estimator leaves out.

    Attributes:
        rel_norm: ||dW|| / ||W||. fro, spectral: norms of dW. stable_rank: ||dW||^2 over the largest
            squared singular value. entropy_rank: exponential of the entropy of squared singular
            values.
        energy: by side, the share of ||dW||^2 in the k leading directions, from 0 to 1.
        weighted: the same with direction i weighted by its squared singular value.
        weighted_full: the same with all directions.
        penalty: what `weighted` has above its line.
        affinity: of spaces, column and row.
    """

    k: int
    shape: tuple[int, int]
    rel_norm: float
    fro: float
    spectral: float
    stable_rank: float | None
    entropy_rank: float | None
    energy: dict[str, float | None]
    weighted: dict[str, float | None]
    weighted_full: dict[str, float | None]
    penalty: dict[str, float]
    frobenius_cosine: float | None
    affinity: dict[str, float | None]

    @property
    def null(self) -> dict[str, float]:
        """What an update without direction has as energy: k/m, k/n, k^2/(mn)."""
        rows, columns = self.shape
        return {
            "column": self.k / rows,
            "row": self.k / columns,
            "both": self.k**2 / (rows * columns),
        }

    @property
    def null_weighted(self) -> dict[str, float]:
        """The same of the weighted numbers: 1/m, 1/n, 1/(mn)."""
        rows, columns = self.shape
        return {"column": 1 / rows, "row": 1 / columns, "both": 1 / (rows * columns)}

    @property
    def lift(self) -> dict[str, float | None]:
        """Energy over its null: 1 is no direction at all."""
        return {
            side: None if value is None else value / self.null[side]
            for side, value in self.energy.items()
        }


def measure(weight: torch.Tensor, update: Update, found: Leading) -> Overlap:
    """Compare an update with its weights.

    Args:
        weight: (m, n). found: its leading directions.
    """
    squared, k = update.squared_norm(), len(found.values)
    norm = math.sqrt(sum(float((row.double() ** 2).sum()) for row in weight.split(256)))
    columns, rows, both = update.projected(found)
    weights = found.values**2
    total = float(weights.sum())
    plain = {
        "column": float(columns.trace()),
        "row": float(rows.trace()),
        "both": float((both**2).sum()),
    }
    penalty = {
        "column": float((weights * columns.diagonal()).sum()),
        "row": float((weights * rows.diagonal()).sum()),
        "both": float((weights[:, None] * both**2 * weights[None, :]).sum()),
    }
    parts = {"column": total, "row": total, "both": total**2}
    if squared == 0:
        nothing: dict[str, float | None] = dict.fromkeys(SIDES)
        return Overlap(
            k=k,
            shape=update.shape,
            rel_norm=0.0,
            fro=0.0,
            spectral=0.0,
            stable_rank=None,
            entropy_rank=None,
            energy=nothing,
            weighted=nothing,
            weighted_full=nothing,
            penalty=dict.fromkeys(SIDES, 0.0),
            frobenius_cosine=None,
            affinity={"column": None, "row": None},
        )
    whole = dict(zip((*SIDES, "inner"), update.against(weight), strict=True))
    all_of = {"column": norm**2, "row": norm**2, "both": norm**4}
    spectral, fro = update.spectral(), math.sqrt(squared)
    near = update.affinity(found)
    return Overlap(
        k=k,
        shape=update.shape,
        rel_norm=fro / norm if norm else math.inf,
        fro=fro,
        spectral=spectral,
        stable_rank=squared / spectral**2,
        entropy_rank=_entropy_rank(update.singular_values()),
        energy={side: _share(plain[side], squared) for side in SIDES},
        weighted={side: _share(penalty[side], parts[side] * squared) for side in SIDES},
        weighted_full={side: _share(whole[side], all_of[side] * squared) for side in SIDES},
        penalty=penalty,
        frobenius_cosine=whole["inner"] / (norm * fro) if norm else None,
        affinity=dict(zip(("column", "row"), near or (None, None), strict=True)),
    )


def _share(part: float, whole: float) -> float | None:
    """Rounding may lift it a little above 1."""
    return None if whole == 0 else min(max(part / whole, 0.0), 1.0)


def _entropy_rank(values: torch.Tensor | None) -> float | None:
    if values is None:
        return None
    shares = values**2 / (values**2).sum()
    return float(torch.exp(-torch.special.xlogy(shares, shares).sum()))
