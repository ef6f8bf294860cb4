"""From error curves to advice: verdict, best number of steps, trade-offs, bounds, calibration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.optimize import minimize_scalar

from methods.plan_test_time_compute.thinking import ERROR_CAP
from methods.typing import FloatArray, IntArray

Verdict = Literal["helps", "saturates", "hurts_after", "hurts_from_first_step"]

#: Below this gain over the second half of the steps a curve is flat.
FLAT_GAIN = 0.01


def best_steps(steps: IntArray, errors: FloatArray) -> int:
    """The fewest steps with the least error; later steps gain nothing or harm."""
    return int(steps[int(np.argmin(errors))])


def verdict(steps: IntArray, errors: FloatArray, edge: float) -> Verdict:
    """What more thinking does.

    With an edge of 2 or more the error grows in the end, whatever the shown steps say. Below it
    the curve is `saturates` when its second half gains under 1% and `helps` otherwise.

    Args:
        steps: ascending from 0, [K].
        errors: median error at each, [K].
        edge: stability edge of the median test prompt.
    """
    best = best_steps(steps, errors)
    if best == 0:
        return "hurts_from_first_step"
    if edge >= 2:
        return "hurts_after"
    # The last step of the first half: of one step that is none at all.
    half = int(np.searchsorted(steps, steps[-1] / 2, side="right")) - 1
    middle = float(errors[half])
    gained = middle - float(errors[-1])
    return "saturates" if gained < FLAT_GAIN * middle else "helps"


def steps_until(steps: IntArray, errors: FloatArray, level: float) -> int | None:
    """The fewest steps with an error of at most `level`; None where none reaches it."""
    reached = np.flatnonzero(errors <= level)
    return int(steps[reached[0]]) if len(reached) else None


def direct_bound(dim: int, hardness: float, n: int, m: int | None) -> float:
    """Upper bound of err_1 when training and test covariance agree (Theorem 3.3).

    (d/n^2)(1 + H)^2 + (d/m)(1 + H).
    """
    bound = dim / n**2 * (1 + hardness) ** 2
    return bound + (dim / m * (1 + hardness) if m else 0.0)


def scaling_bound(dim: int, hardness: float, n: int, steps: IntArray) -> FloatArray:
    """Upper bound of err_k for a long matched test prompt: d (1 + n/(1+H))^(-2k) (Cor. 3.5)."""
    return np.asarray(dim * (1 + n / (1 + hardness)) ** (-2.0 * steps))


def marchenko_pastur_edge(dim: int, n: int, m: int) -> float:
    """Stability edge of isotropic matched data: (1 + sqrt(d/m))^2 / (1 + (1 + d)/n).

    Above 2 thinking diverges although training and test agree; long training contexts need
    m > 5.83 d.
    """
    return float((1 + np.sqrt(dim / m)) ** 2 / (1 + (1 + dim) / n))


@dataclass(frozen=True)
class Calibration:
    """How an observed curve fits the predicted one.

    Attributes:
        budget_per_step: observed budget (e.g. tokens) that one step stands for.
        r_squared: 1 - residual / variance of the observed relative errors; below 0 the fit is
            worse than a constant.
        predicted: relative errors at the observed budgets, [points].
    """

    budget_per_step: float
    r_squared: float
    predicted: FloatArray


def calibrate(
    steps: IntArray, errors: FloatArray, budgets: FloatArray, observed: FloatArray
) -> Calibration:
    """Fit the one free scale between steps and an observed budget by least squares.

    Args:
        steps, errors: the predicted curve, errors[0] being the error without thinking.
        budgets: observed budgets > 0, [points].
        observed: errors relative to the error without thinking, [points].
    """
    logs = np.log(np.maximum(errors / errors[0], 1 / ERROR_CAP))

    def predicted(log_scale: float) -> FloatArray:
        return np.asarray(np.exp(np.interp(budgets / np.exp(log_scale), steps, logs)))

    def loss(log_scale: float) -> float:
        return float(np.sum((np.minimum(predicted(log_scale), 1e3) - observed) ** 2))

    low = np.log(budgets.min() / max(float(steps[-1]), 1.0)) - 2
    high = np.log(budgets.max()) + 5
    grid = np.linspace(low, high, 400)
    best = int(np.argmin([loss(point) for point in grid]))
    width = grid[1] - grid[0]
    found = minimize_scalar(loss, bounds=(grid[best] - width, grid[best] + width), method="bounded")
    variance = float(np.sum((observed - observed.mean()) ** 2))
    r_squared = 1 - loss(float(found.x)) / variance if variance > 0 else 0.0
    return Calibration(float(np.exp(found.x)), r_squared, predicted(float(found.x)))
