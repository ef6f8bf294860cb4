"""Extension: the mixture that minimises the error itself after k steps. Not in the paper.

The paper's quadratic programme measures coverage, which is the error only for long training
prompts that mix tasks by example. This minimises log err_k of the trained model directly. The
problem is not convex: several starts are tried and the best answer is kept.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.optimize import LinearConstraint, minimize, minimize_scalar

from methods.plan_test_time_compute.mixture import Constraints, linear_minimum, project
from methods.plan_test_time_compute.thinking import Mixing, moment_parts
from methods.typing import FloatArray

Loss = Callable[[FloatArray], tuple[float, FloatArray]]

MAX_POLISH = 20


class ThinkingLoss:
    """log err_k as a function of the mixture, with its gradient.

    Args:
        tasks: covariances, [T, r, r].
        sigma: the target, [r, r], as in the population limit of a test prompt.
        n: examples in a training prompt.
        mixing: the data model.
        steps: k >= 1.
    """

    def __init__(
        self, tasks: FloatArray, sigma: FloatArray, n: int, mixing: Mixing, steps: int
    ) -> None:
        self._tasks, self._sigma, self._steps = tasks, sigma, steps
        self._parts = moment_parts(tasks, n, mixing)
        self._square = 1 - 1 / n if mixing == "per_example" else 0.0

    def __call__(self, weights: FloatArray) -> tuple[float, FloatArray]:
        """log err_k and its gradient, [T]."""
        mean = np.tensordot(weights, self._tasks, axes=1)
        second = np.tensordot(weights, self._parts, axes=1) + self._square * mean @ mean
        ridge = 1e-12 * np.trace(second) / len(second)
        inverse = np.linalg.inv(second + ridge * np.eye(len(second)))
        a = mean @ inverse
        residual = np.eye(len(mean)) - a @ self._sigma
        powers = [np.eye(len(mean))]
        for _ in range(self._steps):
            powers.append(powers[-1] @ residual)
        error = float(np.sum(powers[-1] ** 2))
        if not np.isfinite(error) or error <= 0:
            return 1e3, np.zeros(len(weights))
        adjoint = np.zeros_like(mean)
        for j in range(self._steps):
            adjoint += powers[j].T @ powers[-1] @ powers[self._steps - 1 - j].T
        # d err = -2 <adjoint, dA Sigma>, dA = (dL - A dE) E^-1
        left = adjoint @ self._sigma @ inverse
        through_a = a.T @ left
        gradient = np.einsum("ij,tij->t", left, self._tasks)
        gradient -= np.einsum("ij,tij->t", through_a, self._parts)
        if self._square:
            both = through_a @ mean.T + mean.T @ through_a
            gradient -= self._square * np.einsum("ij,tij->t", both, self._tasks)
        return float(np.log(error)), -2 * gradient / error


def minimise_error(
    loss: ThinkingLoss,
    start: FloatArray,
    constraints: Constraints,
    rng: np.random.Generator,
    starts: int = 6,
    check: Callable[[], None] = lambda: None,
) -> tuple[FloatArray, float]:
    """Weights [T] and log err_k of the best of several local minima.

    Args:
        start: the quadratic programme's mixture; the answer is never worse than it.
        starts: further starts: uniform, then random mixtures.
    """
    tasks = len(start)

    def watched(weights: FloatArray) -> tuple[float, FloatArray]:
        check()
        return loss(weights)

    candidates = [start, project(np.full(tasks, 1 / tasks), constraints)]
    candidates += [
        project(rng.dirichlet(np.full(tasks, 0.5)), constraints) for _ in range(starts - 1)
    ]
    best, value = start, loss(start)[0]
    for candidate in candidates:
        weights, found = _descend(watched, candidate, constraints)
        if found < value:
            best, value = weights, found
    # The loss is steep towards irrelevant tasks and flat along useful ones, where SLSQP stalls; a
    # Frank-Wolfe step with a line search moves along the flat part.
    for _ in range(MAX_POLISH):
        moved = _frank_wolfe_step(watched, best, constraints)
        weights, found = min((moved, _descend(watched, moved[0], constraints)), key=lambda x: x[1])
        if found > value - 1e-9:
            break
        best, value = weights, found
    return best, value


def _frank_wolfe_step(
    loss: Loss, weights: FloatArray, constraints: Constraints
) -> tuple[FloatArray, float]:
    direction = linear_minimum(loss(weights)[1], constraints) - weights
    answer = minimize_scalar(
        lambda logit: loss(weights + np.exp(logit) * direction)[0],
        bounds=(-16.0, 0.0),
        method="bounded",
    )
    moved = weights + np.exp(float(answer.x)) * direction
    return moved, loss(moved)[0]


def _descend(loss: Loss, start: FloatArray, constraints: Constraints) -> tuple[FloatArray, float]:
    rows = [LinearConstraint(np.ones((1, len(start))), 1.0, 1.0)]
    if np.isfinite(constraints.budget):
        rows.append(LinearConstraint(constraints.cost[None], -np.inf, constraints.budget))
    answer = minimize(
        loss,
        start,
        jac=True,
        method="SLSQP",
        bounds=np.column_stack([constraints.low, constraints.high]),
        constraints=rows,
        options={"maxiter": 300, "ftol": 1e-10},
    )
    weights = project(np.asarray(answer.x), constraints)
    return weights, loss(weights)[0]
