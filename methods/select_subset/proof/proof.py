"""The trainings of a proof, and what may be concluded from them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from methods.context import RunContext
from methods.errors import JobError
from methods.resume import ResumeStore
from methods.select_subset.algorithms.budgets import Outcome
from methods.select_subset.algorithms.dispatch import random_rows
from methods.select_subset.child_jobs import ARM_PART, HERE_ROWS, ArmMeasured, ArmPart
from methods.select_subset.proof.marks import marked
from methods.select_subset.result import ProofDifference, ProofSet, SelectionProof
from methods.select_subset.schema.prove import Prove
from methods.select_subset.schema.proxy_model import FineTune
from methods.select_subset.spec import Spec
from methods.statistics import student_interval
from methods.typing import BoolArray, FloatArray, IntArray

#: Streams of `random_rows` from here on are those of the trainings.
_STREAM = 1_000_000


@dataclass
class _Set:
    """Rows that are trained on: what they are called, and which they are for each seed."""

    name: str
    rows: list[IntArray]


def prove(spec: Spec, outcome: Outcome, asked: BoolArray | None, ctx: RunContext) -> SelectionProof:
    """Train on the choice, on random rows and on all, and ask about held-out rows.

    Args:
        asked: (N,) the rows that are held out; None where the request brings others.

    Raises:
        JobError: `input_invalid` where nothing was held out; those of the children.
    """
    wanted = spec.prove
    assert wanted is not None, "asked for by the caller"
    if asked is not None and not asked.any():
        raise JobError(
            "input_invalid",
            "prove: the data set is too small to hold rows out; raise prove.held_out, or give "
            "prove.eval.",
        )
    train = _training(spec, wanted)
    steps = max(
        1, math.ceil(len(outcome.rows) * train.passes(len(outcome.rows)) / train.batch_rows)
    )
    sets = _sets(spec, outcome, wanted)
    count = len(outcome.score)
    parts = [
        _part(spec, wanted, train, steps, rows, seed, count, asked)
        for one in sets
        for seed, rows in enumerate(one.rows)
    ]
    here = ctx.parallel and count <= HERE_ROWS
    measured = list(_here(parts, ctx)) if here else _apart(parts, ctx)
    return concluded(sets_of(measured, [one.name for one in sets], wanted.seeds), outcome, train)


def _here(parts: list[ArmPart], ctx: RunContext) -> Iterator[ArmMeasured]:
    """Train in this process: starting others would take longer than the trainings."""
    from methods.select_subset.proof import arms

    for done, part in enumerate(parts):
        ctx.progress("proving", done, len(parts), "trainings")
        kept = ResumeStore(ctx, f"arm {part.model_dump_json()}")
        data = kept.find("measured")
        if data is None:
            # The curves of the job are those of its proxy.
            measured = arms.measured(part, ctx, lambda name, value, step: None)
            kept.keep("measured", measured.model_dump_json().encode())
            yield measured
        else:
            yield ArmMeasured.model_validate_json(data)


def _apart(parts: list[ArmPart], ctx: RunContext) -> list[ArmMeasured]:
    """Train in children, side by side; what an earlier job trained is found."""
    found: dict[int, ArmMeasured] = {}
    ctx.progress("proving", 0, len(parts), "trainings")
    for child in ctx.fan_out(ARM_PART.name, parts):
        found[child.place] = ArmMeasured.model_validate(child.result)
        ctx.progress("proving", len(found), len(parts), "trainings")
    return [found[place] for place in range(len(parts))]


def _training(spec: Spec, wanted: Prove) -> FineTune:
    """How a training goes: as asked, as the proxy's, or by default."""
    own = spec.model.fine_tune if spec.model is not None else None
    return (wanted.train or own or FineTune()).model_copy(update={"checkpoints": 1})


def _sets(spec: Spec, outcome: Outcome, wanted: Prove) -> list[_Set]:
    """The rows of each training; the first random ones are the random list of the result."""
    candidates, chosen = outcome.candidates, len(outcome.rows)
    drawn = [outcome.random_rows]
    for seed in range(1, wanted.seeds):
        drawn.append(candidates[random_rows(len(candidates), chosen, spec.seed, _STREAM + seed)])
    sets = [_Set("chosen", [outcome.rows] * wanted.seeds), _Set("random", drawn)]
    if wanted.all_rows:
        sets.append(_Set("all", [candidates] * wanted.seeds))
    return sets


def _part(
    spec: Spec,
    wanted: Prove,
    train: FineTune,
    steps: int,
    rows: IntArray,
    seed: int,
    count: int,
    asked: BoolArray | None,
) -> ArmPart:
    model = wanted.model or (spec.model.name if spec.model is not None else None)
    assert spec.dataset is not None, "the spec was checked"
    assert model is not None, "the spec was checked"
    learnt = np.zeros(count, dtype=np.bool_)
    learnt[rows] = True
    return ArmPart(
        dataset=spec.dataset,
        eval=wanted.eval,
        learnt=marked(learnt),
        asked=None if asked is None else marked(asked),
        model=model,
        train=train,
        steps=steps,
        seed=spec.seed + seed,
        max_tokens=wanted.max_tokens,
        batch_tokens=wanted.batch_tokens,
    )


def sets_of(
    measured: list[ArmMeasured], names: list[str], seeds: int
) -> dict[str, list[ArmMeasured]]:
    """The trainings of each set, seed by seed."""
    return {name: measured[n * seeds : (n + 1) * seeds] for n, name in enumerate(names)}


def concluded(
    found: dict[str, list[ArmMeasured]], outcome: Outcome, train: FineTune
) -> SelectionProof:
    """What the trainings say."""
    chosen, random = found["chosen"], found["random"]
    every = [one for runs in found.values() for one in runs]
    a_step = float(np.median([one.seconds / one.steps for one in every]))
    passes = train.passes(len(outcome.rows))
    hours = a_step * passes / train.batch_rows / 3600
    all_hours, chosen_hours = hours * len(outcome.candidates), hours * len(outcome.rows)
    difference = difference_of(
        np.array([one.loss for one in random]) - np.array([one.loss for one in chosen])
    )
    return SelectionProof(
        steps=chosen[0].steps,
        epochs=round(passes, 6),
        asked=chosen[0].asked,
        sets=[_arm(name, runs) for name, runs in found.items()],
        difference=difference,
        verdict=verdict(difference),
        device=every[0].device,
        seconds_per_step=a_step,
        hours_all=all_hours,
        hours_chosen=chosen_hours,
        hours_saved=all_hours - chosen_hours,
    )


def _arm(name: str, runs: list[ArmMeasured]) -> ProofSet:
    losses = np.array([one.loss for one in runs])
    found = student_interval(losses)
    return ProofSet(
        name=name,
        rows=runs[0].rows,
        loss=float(losses.mean()),
        low=found.low,
        high=found.high,
        losses=losses.tolist(),
        correct=float(np.mean([one.correct for one in runs])),
    )


def difference_of(values: FloatArray) -> ProofDifference:
    """Mean and 95 % interval, by Student's t, of the paired differences of the seeds."""
    found = student_interval(values)
    return ProofDifference(mean=float(values.mean()), low=found.low, high=found.high)


def verdict(difference: ProofDifference) -> str:
    """What an interval of loss(random) - loss(chosen) says."""
    if difference.low is None or difference.high is None:
        return "unknown"
    if difference.low > 0:
        return "better"
    return "worse" if difference.high < 0 else "cannot be told apart"
