"""How far a weak supervisor's representation fails to cover what a strong model can learn.

Xue, Li and Mirzasoleiman, "Representations Shape Weak-to-Strong Generalization" (ICML 2025,
arXiv:2502.00620). With P = K (K + beta I)^-1 the ridge smoother of a representation's kernel
K = H H^T / n, the prediction gap of the strong student trained on weak labels is
||P_s (I - P_w) y||^2 / n up to o(1) (Theorem 3.8), so ||P_s (I - P_w)|| ranks supervisors without
labels. No n x n matrix is needed: with H = sqrt(n) U diag(sqrt(lambda)) V^T every quantity below
lives in the r_s x r_w overlap C = U_s^T U_w.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from methods.predict_weak_to_strong.spectrum import Spectrum
from methods.typing import FloatArray


def shrinkage_factors(eigenvalues: FloatArray, beta: float) -> FloatArray:
    """Eigenvalues lambda / (lambda + beta) of the ridge smoother P, in (0, 1), shape [r]."""
    return eigenvalues / (eigenvalues + beta)


def effective_dimension(eigenvalues: FloatArray, beta: float) -> float:
    """tr P = sum lambda / (lambda + beta), between 0 and r: the dimensions ridge can use."""
    return float(np.sum(shrinkage_factors(eigenvalues, beta)))


def participation_ratio(spectrum: Spectrum) -> float:
    """(tr C)^2 / ||C||_F^2, between 1 and d: how many directions carry the variance."""
    return float(spectrum.trace**2 / spectrum.squares)


def overlap(strong: Spectrum, weak: Spectrum, cross: FloatArray) -> FloatArray:
    """C = U_s^T U_w, the cosines between the two sets of left singular vectors, [r_s, r_w].

    Args:
        cross: (1/n) sum z_s z_w^T of the projected rows, [r_s, r_w].
    """
    return weak.whiten(strong.whiten(cross).T).T


def uncovered_gram(
    strong: FloatArray, weak: FloatArray, c: FloatArray, beta_s: float, beta_w: float
) -> FloatArray:
    """D_s [I - C (2 D_w - D_w^2) C^T] D_s, whose spectrum is that of P_s (I - P_w)^2 P_s.

    Args:
        strong, weak: scaled eigenvalues, [r_s] and [r_w].
        c: the overlap, [r_s, r_w].

    Returns:
        A symmetric positive semi-definite matrix [r_s, r_s].
    """
    d_s, d_w = shrinkage_factors(strong, beta_s), shrinkage_factors(weak, beta_w)
    inner = -(c * (d_w * (2.0 - d_w))) @ c.T
    inner[np.diag_indices_from(inner)] += 1.0
    gram = d_s[:, None] * inner * d_s
    return (gram + gram.T) / 2


def gram_norms(gram: FloatArray) -> tuple[float, float]:
    """Operator norm in [0, 1) and squared Frobenius norm of P_s (I - P_w) from its Gram matrix."""
    # All of them: asking LAPACK for the last one alone can fail where eigenvalues repeat.
    largest = float(np.linalg.eigvalsh(gram)[-1])
    return float(np.sqrt(max(largest, 0.0))), max(float(np.trace(gram)), 0.0)


@dataclass(frozen=True)
class CoverageMetrics:
    """Label-free scores of one weak representation against the strong one.

    Attributes:
        operator_norm: ||P_s (I - P_w)||_op in [0, 1), small is better (the paper's metric).
        frobenius: ||P_s (I - P_w)||_F^2 / tr P_s, small is better, 0 to 1.
    """

    operator_norm: float
    frobenius: float


def coverage_metrics(
    strong: FloatArray, weak: FloatArray, c: FloatArray, beta_s: float, beta_w: float
) -> CoverageMetrics:
    """The two label-free metrics (arXiv:2502.00620, the norm after Theorem 3.8).

    Args:
        strong, weak: scaled eigenvalues, [r_s] and [r_w].
        c: the overlap, [r_s, r_w].
    """
    norm, squared = gram_norms(uncovered_gram(strong, weak, c, beta_s, beta_w))
    return CoverageMetrics(norm, squared / effective_dimension(strong, beta_s))


def linear_cka(strong: Spectrum, weak: Spectrum, cross: FloatArray) -> float:
    """||C_sw||_F^2 / (||C_ss||_F ||C_ww||_F) in [0, 1] (Kornblith et al. 2019), high is alike.

    Neither representation may be constant (rank 0).
    """
    return float(np.sum(cross**2) / np.sqrt(strong.squares * weak.squares))


def principal_angles(c: FloatArray, count: int = 10) -> FloatArray:
    """The smallest principal angles between the two column spaces, in degrees, ascending."""
    if c.size == 0:
        return np.zeros(0)
    cosines = np.linalg.svd(c, compute_uv=False)[:count]
    return np.asarray(np.degrees(np.arccos(np.clip(cosines, 0.0, 1.0))))


@dataclass(frozen=True)
class LabelMoments:
    """Cross-moments of projected rows with labels, in blocks of labelled rows.

    Attributes:
        strong, weak: sums over a block's rows of z y^T, [blocks, r_s, c] and [blocks, r_w, c].
        counts: labelled rows a block, [blocks].
        power: mean over labelled rows of ||y||^2, about the mean label when centred.
        complete: every row has a label.
    """

    strong: FloatArray
    weak: FloatArray
    counts: FloatArray
    power: float
    complete: bool


def squared_mean(blocks: FloatArray, counts: FloatArray, complete: bool) -> FloatArray:
    """Squared mean of the vectors behind block sums, elementwise.

    With all rows labelled the mean is the quantity itself. With a sample of labels its square
    is biased up by the sampling variance, which products of different blocks do not share.

    Args:
        blocks: sums over the rows of each block, [blocks, ...].
        counts: rows a block, [blocks].
    """
    total = blocks.sum(axis=0)
    rows = float(counts.sum())
    if complete:
        return np.asarray((total / rows) ** 2)
    pairs = rows**2 - float(np.sum(counts**2))
    return np.asarray((total**2 - np.sum(blocks**2, axis=0)) / pairs)


def uncovered_labels(
    strong: Spectrum,
    weak: Spectrum,
    c: FloatArray,
    labels: LabelMoments,
    betas: tuple[float, float],
) -> FloatArray:
    """Block sums of U_s^T P_s (I - P_w) y / sqrt(n), [blocks, r_s, columns]."""
    d_s = shrinkage_factors(strong.scaled, betas[0])
    d_w = shrinkage_factors(weak.scaled, betas[1])
    g_s = labels.strong / np.sqrt(strong.eigenvalues)[:, None]
    g_w = labels.weak / np.sqrt(weak.eigenvalues)[:, None]
    return np.asarray(d_s[:, None] * (g_s - c @ (d_w[:, None] * g_w)))


def label_projection(
    strong: Spectrum,
    weak: Spectrum,
    c: FloatArray,
    labels: LabelMoments,
    betas: tuple[float, float],
) -> float:
    """||P_s (I - P_w) y||^2 / n, the predicted prediction gap (Theorem 3.8), small is better.

    In the squared units of the labels, summed over label columns; never below 0.
    """
    blocks = uncovered_labels(strong, weak, c, labels, betas)
    squares = squared_mean(blocks, labels.counts, labels.complete)
    return max(float(np.sum(squares)), 0.0)


def ceiling_error(strong: Spectrum, labels: LabelMoments, beta_s: float, rows: int) -> float:
    """Estimated squared error of the strong model trained on true labels (strong ceiling).

    Generalised cross-validation (Golub, Heath and Wahba 1979) of the ridge fit: the training
    residual over (1 - tr P_s / n)^2. In the squared units of the labels.
    """
    d_s = shrinkage_factors(strong.scaled, beta_s)
    g_s = labels.strong / np.sqrt(strong.eigenvalues)[:, None]
    explained = squared_mean(g_s, labels.counts, labels.complete).sum(axis=1)
    residual = labels.power - float(np.sum(d_s * (2.0 - d_s) * explained))
    return max(residual, 0.0) / max(1.0 - float(np.sum(d_s)) / rows, 1e-6) ** 2


def example_scores(strong: Spectrum, coordinates: FloatArray, uncovered: FloatArray) -> FloatArray:
    """|[P_s (I - P_w) y]_i| of single rows, the length over label columns, shape [n].

    Args:
        coordinates: the rows along the strong directions, [n, r_s].
        uncovered: U_s^T P_s (I - P_w) y / sqrt(n), [r_s, columns].
    """
    return np.asarray(np.linalg.norm(coordinates @ strong.whiten(uncovered), axis=1))
