"""The mixture of training tasks that covers a target best: a convex quadratic programme.

min over mixtures pi of || I - Sigma^-1 sum_l pi_l Lambda_l ||_F^2 (arXiv:2510.03605, section 4).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq, linprog

from methods.typing import FloatArray

#: Keeps the mixture unique where tasks repeat each other or outnumber the second moments.
RIDGE = 1e-10
GAP_TOLERANCE = 1e-12
MAX_ITERATIONS = 20000


@dataclass(frozen=True)
class Constraints:
    """Bounds low <= pi <= high, sum pi = 1 and cost . pi <= budget.

    Attributes:
        low, high: bounds of each weight, [T].
        cost: cost of each task, [T].
        budget: bound of the mean cost; inf for none.
    """

    low: FloatArray
    high: FloatArray
    cost: FloatArray
    budget: float = np.inf

    @classmethod
    def simplex(cls, tasks: int) -> Constraints:
        return cls(np.zeros(tasks), np.ones(tasks), np.zeros(tasks))

    def cheapest(self) -> FloatArray:
        """The feasible mixture of least cost.

        Raises:
            ValueError: no mixture satisfies the constraints.
        """
        if self.low.sum() > 1 + 1e-12 or self.high.sum() < 1 - 1e-12:
            raise ValueError("the bounds leave no weights that sum to 1")
        weights = self.low.copy()
        left = 1.0 - weights.sum()
        for task in np.argsort(self.cost, kind="stable"):
            step = min(self.high[task] - self.low[task], left)
            weights[task] += step
            left -= step
        if float(self.cost @ weights) > self.budget * (1 + 1e-12):
            raise ValueError(
                f"the cheapest mixture costs {float(self.cost @ weights):.6g}, above the budget"
            )
        return weights


@dataclass(frozen=True)
class Quadratic:
    """objective(pi) = pi^T Q pi - 2 c^T pi + constant, the coverage error of a mixture.

    Attributes:
        q: Q_ab = tr(Lambda_a Sigma^-2 Lambda_b), [T, T].
        c: c_a = tr(Sigma^-1 Lambda_a), [T].
        constant: r.
    """

    q: FloatArray
    c: FloatArray
    constant: float

    def value(self, weights: FloatArray) -> float:
        """|| I - Sigma^-1 sum pi Lambda ||_F^2 >= 0; 0 is a mixture equal to the target."""
        return max(float(weights @ self.q @ weights - 2 * self.c @ weights) + self.constant, 0.0)


def coverage_quadratic(tasks: FloatArray, sigma: FloatArray) -> Quadratic:
    """The quadratic of a target [r, r] (positive definite) and tasks [T, r, r]."""
    scaled = np.linalg.solve(sigma, tasks).reshape(len(tasks), -1)
    c = np.trace(scaled.reshape(tasks.shape), axis1=1, axis2=2)
    return Quadratic(scaled @ scaled.T, c, float(len(sigma)))


def project(point: FloatArray, constraints: Constraints) -> FloatArray:
    """The nearest feasible mixture to a point [T] (Euclidean)."""
    weights = _project_bounded(point, constraints)
    cost, budget = constraints.cost, constraints.budget
    if float(cost @ weights) <= budget:
        return weights
    high = 1.0 / max(float(np.abs(cost).max()), np.finfo(np.float64).tiny)
    while _excess(high, point, constraints) > 0:
        high *= 4
        if high > 1e18:
            return constraints.cheapest()
    price = brentq(_excess, 0.0, high, args=(point, constraints), xtol=1e-14 * high)
    return _project_bounded(point - price * cost, constraints)


def _excess(price: float, point: FloatArray, constraints: Constraints) -> float:
    """Cost over the budget of the projection when cost has a price; falls with the price."""
    weights = _project_bounded(point - price * constraints.cost, constraints)
    return float(constraints.cost @ weights) - constraints.budget


def _project_bounded(point: FloatArray, constraints: Constraints) -> FloatArray:
    """clip(point - t, low, high) with the t that makes the sum 1.

    The sum is piecewise linear and falling in t with corners at point - high and point - low, so
    one sort finds it exactly (Held, Wolfe and Crowder 1974, with upper bounds).
    """
    low, high = constraints.low, constraints.high
    corners = np.concatenate([point - high, point - low])
    slopes = np.concatenate([-np.ones(len(point)), np.ones(len(point))])
    order = np.argsort(corners, kind="stable")
    corners, slopes = corners[order], np.cumsum(slopes[order])
    sums = high.sum() + np.concatenate([[0.0], np.cumsum(slopes[:-1] * np.diff(corners))])
    index = int(np.clip(np.searchsorted(-sums, -1.0, side="right") - 1, 0, len(sums) - 1))
    shift = corners[index]
    if slopes[index] < 0:
        shift += (sums[index] - 1.0) / -slopes[index]
    return np.asarray(np.clip(point - shift, low, high))


def linear_minimum(gradient: FloatArray, constraints: Constraints) -> FloatArray:
    """The feasible mixture with the least gradient . pi."""
    if np.isfinite(constraints.budget):
        answer = linprog(
            gradient,
            A_ub=constraints.cost[None],
            b_ub=[constraints.budget],
            A_eq=np.ones((1, len(gradient))),
            b_eq=[1.0],
            bounds=np.column_stack([constraints.low, constraints.high]),
        )
        if answer.status == 0:
            return np.asarray(answer.x)
    free = Constraints(constraints.low, constraints.high, gradient)
    return free.cheapest()


@dataclass(frozen=True)
class Mixture:
    """A solved mixture.

    Attributes:
        weights: [T], feasible.
        objective: the quadratic's value.
        gap: Frank-Wolfe duality gap, an upper bound on objective minus the optimum.
        iterations: gradient steps taken.
    """

    weights: FloatArray
    objective: float
    gap: float
    iterations: int


def solve(
    quadratic: Quadratic,
    constraints: Constraints,
    check: Callable[[], None] = lambda: None,
) -> Mixture:
    """The optimal mixture by FISTA with restarts (Beck and Teboulle 2009; O'Donoghue and Candes
    2015), stopped on the duality gap relative to the constant r.

    Raises:
        ValueError: no mixture satisfies the constraints.
    """
    tasks = len(quadratic.c)
    constraints.cheapest()
    ridge = RIDGE * float(np.trace(quadratic.q)) / tasks
    q = quadratic.q + ridge * np.eye(tasks)
    lipschitz = 2 * float(np.linalg.eigvalsh(q)[-1])
    weights = project(np.full(tasks, 1 / tasks), constraints)
    ahead, momentum, gap, iteration = weights, 1.0, np.inf, 0
    tolerance = GAP_TOLERANCE * quadratic.constant
    for iteration in range(1, MAX_ITERATIONS + 1):
        step = project(ahead - 2 * (q @ ahead - quadratic.c) / lipschitz, constraints)
        if float((ahead - step) @ (step - weights)) > 0:
            momentum = 1.0
        following = (1 + np.sqrt(1 + 4 * momentum**2)) / 2
        ahead = step + (momentum - 1) / following * (step - weights)
        weights, momentum = step, following
        if iteration % 20 == 0 or tasks == 1:
            check()
            gap = duality_gap(q, quadratic.c, weights, constraints)
            if gap <= tolerance:
                break
    return Mixture(weights, quadratic.value(weights), max(gap, 0.0), iteration)


def duality_gap(
    q: FloatArray, c: FloatArray, weights: FloatArray, constraints: Constraints
) -> float:
    """Frank-Wolfe gap max_s gradient . (pi - s) >= objective - optimum."""
    gradient = 2 * (q @ weights - c)
    return float(gradient @ (weights - linear_minimum(gradient, constraints)))


def diversity(weights: FloatArray) -> float:
    """exp of the entropy of the mixture, 1 to T: how many tasks it uses."""
    used = weights[weights > 0]
    return float(np.exp(-np.sum(used * np.log(used))))
