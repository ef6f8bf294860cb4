"""What a release of a noisy mean gives away: the Gaussian mechanism, exact, and its composition.

mu = sensitivity / sigma says it all (Dong, Roth, Su 2019): a mechanism with mu is (epsilon, delta)
private for every epsilon with delta = Phi(mu/2 - epsilon/mu) - e^epsilon Phi(-mu/2 - epsilon/mu)
(Balle and Wang 2018, Theorem 8), and rho-zCDP with rho = mu^2 / 2 (Bun and Steinke 2016).
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from scipy.optimize import brentq, minimize_scalar
from scipy.special import log_ndtr

from methods.typing import FloatArray

Adjacency = Literal["replace-one", "zero-out-one"]


def sensitivity(clip: float, n: int, adjacency: Adjacency) -> float:
    """How far the mean of n vectors of norm at most `clip` moves when one record changes.

    n is taken as public. `replace-one`: the record becomes any other; `zero-out-one`: a zero.
    """
    return (2 if adjacency == "replace-one" else 1) * clip / n


def delta_of(epsilon: float, mu: float) -> float:
    """The smallest delta at an epsilon, of a Gaussian mechanism with mu; falls in epsilon."""
    first = log_ndtr(mu / 2 - epsilon / mu)
    second = epsilon + log_ndtr(-mu / 2 - epsilon / mu)
    return float(np.exp(first) * -np.expm1(min(second - first, 0.0)))


def epsilon_of(mu: float, delta: float) -> float:
    """The smallest epsilon at a delta; 0 where the delta alone covers it."""
    if mu == 0 or delta_of(0.0, mu) <= delta:
        return 0.0
    high = 1.0
    while delta_of(high, mu) > delta:
        high *= 2
    return float(brentq(lambda e: delta_of(e, mu) - delta, 0.0, high, xtol=1e-14, rtol=1e-14))


def sigma_for(epsilon: float, delta: float, sensitivity: float) -> float:
    """The standard deviation of the noise in each coordinate that one release needs."""
    low = high = 1.0
    while delta_of(epsilon, low) > delta:
        low /= 2
    while delta_of(epsilon, high) < delta:
        high *= 2
    mu = brentq(lambda m: delta_of(epsilon, m) - delta, low, high, xtol=1e-15, rtol=1e-14)
    return float(sensitivity / mu)


def rho_of(sigma: float, sensitivity: float) -> float:
    """The zCDP parameter of a release; those of several releases of the same records add up."""
    return (sensitivity / sigma) ** 2 / 2


def composed_mu(rho: float) -> float:
    """The mu of Gaussian releases whose rho add up to `rho`: their composition is exact."""
    return math.sqrt(2 * rho)


def zcdp_epsilon(rho: float, delta: float) -> float:
    """The epsilon at a delta of any mechanism that is rho-zCDP (Canonne, Kamath, Steinke 2020).

    The least over alpha > 1 of rho alpha + ln(1 / (alpha delta)) / (alpha - 1) + ln(1 - 1/alpha).
    """
    if rho == 0:
        return 0.0

    def at(log_gap: float) -> float:
        gap = math.exp(log_gap)
        alpha = 1 + gap
        return rho * alpha - math.log(alpha * delta) / gap + math.log(gap / alpha)

    middle = 0.5 * math.log(math.log(1 / delta) / rho)
    found = minimize_scalar(
        at, bounds=(middle - 5, middle + 5), method="bounded", options={"xatol": 1e-12}
    )
    return max(0.0, float(found.fun))


def expected_cosine(sigma: float, dimensions: int, signal: float) -> float:
    """About what cosine a noisy mean has to the true one, whose norm is `signal`."""
    return 1 / math.sqrt(1 + dimensions * (sigma / signal) ** 2) if signal > 0 else 0.0


def clipped(vectors: FloatArray, clip: float) -> FloatArray:
    """(n, k) vectors, each scaled down to a norm of at most `clip`."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors * np.minimum(1.0, clip / np.maximum(norms, 1e-300))


def official_sigma(epsilon: float, delta: float, clip: float, n: int) -> float:
    """The noise of the official code, for comparison: a sensitivity of clip / n, other formulas."""
    if epsilon <= 1:
        return clip / n * math.sqrt(2 * math.log(1.25 / delta)) / epsilon
    c = math.sqrt(math.log(2 / (math.sqrt(16 * delta + 1) - 1)))
    return (c + math.sqrt(c * c + epsilon)) * (clip / n) / (epsilon * math.sqrt(2))
