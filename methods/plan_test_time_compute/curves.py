"""Error curves of the recommended mixture, of the baselines, and over training contexts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from methods.context import RunContext
from methods.plan_test_time_compute import planning, result, spec, thinking
from methods.typing import FloatArray, IntArray

Learned = Callable[[FloatArray, int], FloatArray]

#: Training contexts, as multiples of the given one, for the iso-error pairs.
CONTEXT_FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)
TRADEOFF_PROMPTS = 50


@dataclass(frozen=True)
class PromptModel:
    """Random test prompts.

    Attributes:
        sigma: the target covariance, [r, r].
        m: examples in a prompt, None for infinitely many.
        count: prompts drawn.
        seed: every curve sees the same prompts, so that curves compare.
    """

    sigma: FloatArray
    m: int | None
    count: int
    seed: int

    def log_errors(
        self, a: FloatArray, steps: IntArray, count: int, check: Callable[[], None]
    ) -> tuple[FloatArray, FloatArray]:
        """log err_k [prompts, steps] and edges [prompts]; one prompt stands for infinite m."""
        if self.m is None:
            return thinking.sampled_log_errors(a, lambda k: self.sigma[None], steps, 1, check)
        rng = np.random.default_rng([self.seed, self.m])
        m = self.m
        root: FloatArray = np.asarray(np.linalg.cholesky(self.sigma), dtype=np.float64)

        def draw(size: int) -> FloatArray:
            return thinking.prompt_covariances(root, m, size, rng)

        return thinking.sampled_log_errors(a, draw, steps, count, check)


@dataclass(frozen=True)
class CurveSet:
    """All curves of a plan; errors are uncapped logs where the name says so.

    Attributes:
        steps: [K].
        log_errors: of the recommended mixture, [prompts, K].
        edges: stability edges, [prompts].
        population, uniform, current: errors, [K].
        tradeoff: training context and the fewest steps to the level.
        level: the error the pairs reach.
    """

    steps: IntArray
    log_errors: FloatArray
    edges: FloatArray
    population: FloatArray
    uniform: FloatArray
    current: FloatArray | None
    tradeoff: list[tuple[int, int | None]]
    level: float

    def quantile(self, q: float) -> FloatArray:
        """A quantile over prompts of the recommended mixture's error, [K]."""
        return thinking.capped_exp(np.quantile(self.log_errors, q, axis=0))

    @property
    def median(self) -> FloatArray:
        return self.quantile(0.5)

    def public(self) -> result.Curves:
        """The curves as the result shows them."""
        return result.Curves(
            steps=self.steps.tolist(),
            error_median=self.median.tolist(),
            error_q10=self.quantile(0.1).tolist(),
            error_q90=self.quantile(0.9).tolist(),
            population=self.population.tolist(),
            baseline_current=None if self.current is None else self.current.tolist(),
            baseline_uniform=self.uniform.tolist(),
        )


def read_curves(
    ctx: RunContext,
    request: spec.Spec,
    prompts: PromptModel,
    learned: Learned,
    weights: FloatArray,
    current: FloatArray | None,
) -> CurveSet:
    """Compute every curve of a plan.

    Args:
        learned: the map A that a mixture [T] trained with n examples a prompt learns.
        weights, current: mixtures, [T].
    """
    n = request.context_length_train
    assert n is not None
    steps = thinking.step_grid(request.max_steps)

    def median(shares: FloatArray, phase: int) -> FloatArray:
        ctx.progress("curves", phase, 4, "curves")
        logs, _ = prompts.log_errors(learned(shares, n), steps, prompts.count, ctx.check)
        return thinking.capped_exp(np.median(logs, axis=0))

    ctx.progress("curves", 0, 4, "curves")
    a = learned(weights, n)
    log_errors, edges = prompts.log_errors(a, steps, prompts.count, ctx.check)
    uniform = median(np.full(len(weights), 1 / len(weights)), 1)
    before = None if current is None else median(current, 2)
    population = PromptModel(prompts.sigma, None, 1, 0).log_errors(a, steps, 1, ctx.check)[0][0]
    one_step = float(thinking.capped_exp(np.median(log_errors, axis=0))[1])
    wanted = request.target_error
    level = one_step if wanted is None else wanted * len(prompts.sigma)
    ctx.progress("curves", 3, 4, "curves")
    pairs = _tradeoff(ctx, prompts, lambda context: learned(weights, context), n, steps, level)
    return CurveSet(
        steps=steps,
        log_errors=log_errors,
        edges=edges,
        population=thinking.capped_exp(population),
        uniform=uniform,
        current=before,
        tradeoff=pairs,
        level=level,
    )


def _tradeoff(
    ctx: RunContext,
    prompts: PromptModel,
    learned: Callable[[int], FloatArray],
    n: int,
    steps: IntArray,
    level: float,
) -> list[tuple[int, int | None]]:
    """The fewest steps to an error level for training contexts around n."""
    count = min(TRADEOFF_PROMPTS, prompts.count)
    pairs = []
    for context in sorted({max(round(n * factor), 1) for factor in CONTEXT_FACTORS}):
        logs, _ = prompts.log_errors(learned(context), steps, count, ctx.check)
        median = thinking.capped_exp(np.median(logs, axis=0))
        pairs.append((context, planning.steps_until(steps, median, level * (1 + 1e-9))))
    return pairs
