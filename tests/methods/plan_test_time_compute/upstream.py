"""Curves of the theory that golden files compare and no job needs."""

from __future__ import annotations

import numpy as np

from methods.plan_test_time_compute.thinking import _power_log_norms, capped_exp
from methods.typing import FloatArray


def population_curve(a: FloatArray, sigma: FloatArray, steps: int) -> FloatArray:
    """err_k for an infinitely long test prompt, S = Sigma, k = 0..steps, capped at 1e12."""
    log_errors = _power_log_norms((np.eye(len(a)) - a @ sigma)[None], np.arange(steps + 1))
    return capped_exp(log_errors[0])


def first_step_error(a: FloatArray, sigma: FloatArray, m: int) -> float:
    """Exact err_1 for a Gaussian test prompt of m examples (arXiv:2603.01293, Proposition 5.1)."""
    residual = np.eye(len(a)) - a @ sigma
    noise = np.trace(a @ sigma @ sigma @ a.T) + np.trace(a @ sigma @ a.T) * np.trace(sigma)
    return float(np.sum(residual**2) + noise / m)
