"""Chain-of-thought steps as pseudo-Newton iterations: the map A and the error after k steps.

Javanmard, Mirzasoleiman and Mirrokni, "Understanding the Role of Training Data in Test-Time
Scaling" (ICLR 2026, arXiv:2510.03605). A linear self-attention model trained on prompts of n
examples x ~ N(0, Lambda) learns w_{k+1} = w_k - A S (w_k - w) with S = X X^T / m of the test prompt
(Theorem 3.1, Proposition 3.2), so that err_k = E||w_k - w||^2 = ||(I - A S)^k||_F^2.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import pinvh

from methods.typing import FloatArray

Mixing = Literal["per_prompt", "per_example"]

#: Errors are reported up to this value; beyond it the iteration has diverged.
ERROR_CAP = 1e12
#: Draws multiplied at a time.
BATCH = 20
_RESCALE_ABOVE = 1e60


def moment_parts(tasks: FloatArray, n: int, mixing: Mixing) -> FloatArray:
    """The part of E[S^2] that is linear in the mixture, one matrix a task, [T, r, r].

    per_prompt: (1 + 1/n) L^2 + (tr L / n) L; per_example: (2 L^2 + tr(L) L) / n.
    """
    squares = tasks @ tasks
    traces = np.trace(tasks, axis1=1, axis2=2)[:, None, None]
    if mixing == "per_prompt":
        return np.asarray((1 + 1 / n) * squares + traces / n * tasks)
    return np.asarray((2 * squares + traces * tasks) / n)


def prediction_map(tasks: FloatArray, weights: FloatArray, n: int, mixing: Mixing) -> FloatArray:
    """A = E[S] E[S^2]^-1, what training on a mixture of tasks learns, [r, r].

    For one task A = Gamma^-1 with Gamma = (1 + 1/n) Lambda + (tr Lambda / n) I (Theorem 3.1). For
    mixtures of tasks that do not commute A is not symmetric. Directions in which the mixture has
    no variance are never learned: A is zero there.

    Args:
        tasks: covariances, [T, r, r].
        weights: sampling probabilities, [T].
        n: examples in a training prompt.
        mixing: each prompt comes from one task, or each example of a prompt from a random one.
    """
    mean = np.tensordot(weights, tasks, axes=1)
    second = np.tensordot(weights, moment_parts(tasks, n, mixing), axes=1)
    if mixing == "per_example":
        second = second + (1 - 1 / n) * mean @ mean
    return np.asarray(mean @ pinvh((second + second.T) / 2))


def capped_exp(log_errors: FloatArray) -> FloatArray:
    """exp, at most `ERROR_CAP`."""
    return np.asarray(np.exp(np.minimum(log_errors, np.log(ERROR_CAP))))


def is_symmetric_positive(a: FloatArray) -> bool:
    """Whether A can be split as A^1/2 A^1/2."""
    if np.abs(a - a.T).max() > 1e-10 * np.abs(a).max():
        return False
    values = np.linalg.eigvalsh((a + a.T) / 2)
    return bool(values[0] > 1e-9 * values[-1])


def prompt_covariances(
    root: FloatArray, m: int, count: int, rng: np.random.Generator
) -> FloatArray:
    """Sample covariances S = X X^T / m of Gaussian prompts, [count, r, r].

    Long prompts use the Bartlett decomposition, whose cost does not depend on m.

    Args:
        root: any R with R R^T = Sigma, [r, r].
    """
    r = len(root)
    if m <= 2 * r:
        x = root @ rng.standard_normal((count, r, m))
    else:
        lower = np.tril(rng.standard_normal((count, r, r)), -1)
        diagonal = np.sqrt(rng.chisquare(m - np.arange(r), size=(count, r)))
        lower[:, np.arange(r), np.arange(r)] = diagonal
        x = root @ lower
    return np.asarray(x @ x.transpose(0, 2, 1) / m)


def step_grid(max_steps: int) -> NDArray[np.int64]:
    """Steps at which curves are computed: each up to 64, then about 6% apart."""
    steps = list(range(min(max_steps, 64) + 1))
    while steps[-1] < max_steps:
        steps.append(min(max(steps[-1] + 4, int(steps[-1] * 1.06)), max_steps))
    return np.array(steps, dtype=np.int64)


def sampled_log_errors(
    a: FloatArray,
    draws: Callable[[int], FloatArray],
    steps: NDArray[np.int64],
    count: int,
    check: Callable[[], None] = lambda: None,
) -> tuple[FloatArray, FloatArray]:
    """log err_k for random test prompts, and each prompt's stability edge.

    Args:
        draws: gives so many sample covariances, [*, r, r].
        steps: ascending from 0.
        count: number of prompts.
        check: called between batches.

    Returns:
        log errors [count, steps] and edges [count]; the iteration diverges where an edge is > 2.
    """
    symmetric = is_symmetric_positive(a)
    errors, edges = [], []
    for start in range(0, count, BATCH):
        check()
        s = draws(min(BATCH, count - start))
        if symmetric:
            log_errors, edge = _symmetric_batch(a, s, steps)
        else:
            log_errors = _power_log_norms(np.eye(len(a)) - a @ s, steps)
            edge = stability_edges(a @ s)
        errors.append(log_errors)
        edges.append(edge)
    return np.concatenate(errors), np.concatenate(edges)


def stability_edges(products: FloatArray) -> FloatArray:
    """The edge of each matrix A S: (I - A S)^k grows with k where it is > 2.

    For eigenvalues mu, |1 - mu| < 1 exactly when |mu|^2 / Re(mu) < 2; for the positive real mu of
    a symmetric A this is the largest eigenvalue.

    Args:
        products: A S, [*, r, r].
    """
    mu = np.linalg.eigvals(products)
    size = np.abs(mu)
    real = np.where(size > 1e-9 * size.max(axis=-1, keepdims=True), np.real(mu), 1.0)
    edges = np.where(real > 0, size**2 / np.where(real > 0, real, 1.0), np.inf)
    return np.asarray(np.minimum(edges.max(axis=-1), ERROR_CAP))


def _power_log_norms(matrices: FloatArray, steps: NDArray[np.int64]) -> FloatArray:
    """log ||M^k||_F^2 for each matrix [*, r, r] and each step, [*, steps]."""
    count, r = matrices.shape[:2]
    power = np.broadcast_to(np.eye(r), matrices.shape).copy()
    log_scale = np.zeros(count)
    found = np.empty((count, len(steps)))
    jump, jump_scale, jump_size = matrices, np.zeros(count), 1
    at = 0
    for index, step in enumerate(steps):
        gap = int(step) - at
        if gap > 0:
            if gap != jump_size:
                jump, jump_scale = _scaled_power(matrices, gap)
                jump_size = gap
            power = power @ jump
            log_scale += jump_scale
            power, log_scale = _rescaled(power, log_scale)
            at = int(step)
        norms = np.sum(power**2, axis=(1, 2))
        found[:, index] = np.log(np.maximum(norms, 1e-300)) + 2 * log_scale
    return found


def _scaled_power(matrices: FloatArray, exponent: int) -> tuple[FloatArray, FloatArray]:
    result = np.broadcast_to(np.eye(matrices.shape[1]), matrices.shape).copy()
    scale = np.zeros(len(matrices))
    base, base_scale = matrices, np.zeros(len(matrices))
    while exponent:
        if exponent & 1:
            result, scale = _rescaled(result @ base, scale + base_scale)
        exponent >>= 1
        if exponent:
            base, base_scale = _rescaled(base @ base, 2 * base_scale)
    return result, scale


def _rescaled(power: FloatArray, log_scale: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Keep matrices inside the range of float64; what is divided out goes to the log scale."""
    sizes = np.abs(power).max(axis=(1, 2))
    extreme = (sizes > _RESCALE_ABOVE) | ((sizes < 1 / _RESCALE_ABOVE) & (sizes > 0))
    if not extreme.any():
        return power, log_scale
    divisor = np.where(extreme, sizes, 1.0)
    return power / divisor[:, None, None], log_scale + np.log(divisor)


def _symmetric_batch(
    a: FloatArray, s: FloatArray, steps: NDArray[np.int64]
) -> tuple[FloatArray, FloatArray]:
    """One eigen-decomposition a draw gives all steps.

    A^1/2 S A^1/2 = Q diag(mu) Q^T, err_k = (w^k)^T G (w^k) with w = 1 - mu and
    G = (Q^T A Q) o (Q^T A^-1 Q).
    """
    values, vectors = np.linalg.eigh((a + a.T) / 2)
    root = (vectors * np.sqrt(values)) @ vectors.T
    inverse = (vectors / values) @ vectors.T
    mu, q = np.linalg.eigh(root @ s @ root)
    transposed = q.transpose(0, 2, 1)
    g = (transposed @ a @ q) * (transposed @ inverse @ q)
    w = 1.0 - mu
    largest = np.abs(w).max(axis=1, keepdims=True)
    largest[largest == 0] = 1.0
    ratio = w / largest
    found = np.empty((len(s), len(steps)))
    for index, step in enumerate(steps):
        powers = ratio**step
        quadratic = np.einsum("bi,bij,bj->b", powers, g, powers)
        logs = np.log(np.maximum(quadratic, 1e-300))
        found[:, index] = logs + 2 * step * np.log(largest[:, 0])
    return found, mu[:, -1]
