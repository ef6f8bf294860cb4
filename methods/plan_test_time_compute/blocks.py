"""What people see of a plan-test-time-compute result."""

from __future__ import annotations

from methods.plan_test_time_compute.result import Result, TaskReport
from methods.results import (
    Block,
    Column,
    FigureBlock,
    Headline,
    TextBlock,
    counted,
    interval,
    table,
)


def present(result: Result, figures: list[FigureBlock]) -> Result:
    """The result with its headline and blocks."""
    blocks: list[Block] = []
    if result.recommendation is not None:
        blocks.append(TextBlock(text=result.recommendation.words))
    blocks.append(_tasks(result))
    if result.recommendation is not None and result.recommendation.train_context_tradeoff:
        blocks.append(_tradeoff(result))
    coverage = result.mixture.coverage
    if coverage is not None and coverage.directions:
        blocks.append(_directions(result))
    blocks += figures
    blocks += [TextBlock(text=f"Caveat: {text}.") for text in result.caveats]
    return result.shown(
        f"Thinking plan over {counted(len(result.tasks), 'training task')}",
        _headline(result),
        blocks,
    )


def _headline(result: Result) -> list[Headline]:
    advice, target = result.recommendation, result.target
    headline = []
    if advice is not None:
        headline += [
            Headline(
                key="verdict",
                label="More thinking",
                value=advice.verdict.replace("_", " "),
                help=advice.words[:400],
            ),
            Headline(
                key="best_steps",
                label="Best number of steps",
                value=advice.best_steps,
                format="integer",
                help="Steps are iterations of a linear surrogate, not tokens.",
            ),
            Headline(
                key="stability_edge",
                label="Stability edge",
                value=advice.stability_edge,
                better="low",
                help="From 2 on the error grows with the steps.",
            ),
        ]
    low, high = target.hardness_ci or (None, None)
    headline += [
        Headline(
            key="hardness",
            label="Hardness of the target",
            value=target.hardness,
            low=low,
            high=high,
            better="low",
            help="tr / lambda_min, with its 90 % interval over half-samples where rows were given.",
        ),
        Headline(
            key="objective",
            label="Coverage error of the mixture",
            value=result.mixture.objective,
            better="low",
            help="0: the mixture covers the target perfectly.",
        ),
    ]
    return headline


def _tasks(result: Result) -> Block:
    columns = [
        Column(key="name", label="Task"),
        Column(key="weight", label="Recommended share", format="percent"),
        Column(
            key="hardness",
            label="Hardness",
            format="number",
            help="Within the target's directions, with its 90 % interval over half-samples.",
        ),
        Column(
            key="alignment", label="Alignment", format="number", help="With the target, 0 to 1."
        ),
        Column(
            key="relevance",
            label="Relevance",
            format="percent",
            help="Share of the variance inside the target's directions.",
        ),
        Column(
            key="single_task_mu_max",
            label="Stability edge alone",
            format="number",
            better="low",
            help="When training on this task alone; above 2 thinking diverges.",
        ),
        Column(key="n_samples", label="Rows", format="integer"),
        Column(key="shrinkage", label="Shrinkage", format="number"),
    ]
    ranked = sorted(result.tasks, key=lambda task: -task.weight)
    return table("Training tasks", columns, [_row(task) for task in ranked], sort="-weight")


def _row(task: TaskReport) -> dict[str, object]:
    row: dict[str, object] = {name: getattr(task, name) for name in TaskReport.model_fields}
    return {**row, "hardness": interval(task.hardness, task.hardness_ci)}


def _tradeoff(result: Result) -> Block:
    advice, curves = result.recommendation, result.curves
    assert advice is not None
    assert curves is not None, "there is advice"
    level = advice.train_context_tradeoff_level / curves.error_median[0]
    columns = [
        Column(key="context_length_train", label="Training context", format="integer"),
        Column(key="steps", label="Steps that reach the error", format="integer"),
    ]
    return table(
        "Training context against thinking steps",
        columns,
        advice.train_context_tradeoff,
        help=f"Pairs that reach {level:.3g} of the error without thinking; a dash: not within the "
        "steps computed.",
    )


def _directions(result: Result) -> Block:
    coverage = result.mixture.coverage
    assert coverage is not None
    columns = [
        Column(key="mu", label="Step size", format="number"),
        Column(key="top_features", label="Columns with the largest loadings"),
    ]
    return table(
        "Directions that the mixture teaches badly",
        columns,
        coverage.directions,
        help=f"{coverage.uncovered} directions diverge (step size above 2), {coverage.slow} are "
        "slow (below 0.1); the worst are listed.",
    )
