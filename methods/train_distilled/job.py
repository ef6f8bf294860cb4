"""Trains a bundle of networks, or a teacher; each training is kept as soon as it is done."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from io import BytesIO

import numpy as np
from pydantic import TypeAdapter
from torch import nn

from methods.context import RunContext
from methods.rank_distilled_dataset import candidates, parts, plan
from methods.rank_distilled_dataset.parts import Parts
from methods.rank_distilled_dataset.runs import derived_seed
from methods.rank_distilled_dataset.training import (
    Curve,
    Examples,
    Recipe,
    accuracy,
    one_thread,
    train,
)
from methods.train_distilled import teachers
from methods.train_distilled.setup import device_name, device_of, initial, run_seed
from methods.train_distilled.spec import (
    CurveRecord,
    TeacherResult,
    TeacherTraining,
    Trainings,
    TrainingsResult,
)

_RECIPE = TypeAdapter(Recipe)


def run(spec: Trainings, ctx: RunContext) -> TrainingsResult:
    """Do the trainings of a bundle; see `Trainings`."""
    with one_thread():
        return _run(spec, ctx)


def _run(spec: Trainings, ctx: RunContext) -> TrainingsResult:
    device, recipe = device_of(spec.device), _RECIPE.validate_python(spec.recipe)
    real = parts.load(spec.real.dataset, spec.real.held_out, ctx)
    evaluated = real.tested if spec.source == "full" else real.evaluated
    recipe = replace(recipe, late=plan.late(evaluated))
    there = {name: found.to(device) for name, found in evaluated.items()}
    taught = [] if spec.teachers is None else teachers.load(spec.teachers, real, device, ctx)
    source = _source(spec, real, taught, ctx)
    curves: list[Curve] = []
    for place, todo in enumerate(spec.todo):
        ctx.progress("training", place, len(spec.todo), "trainings")
        kept = ctx.restore(f"curve/{place}")
        if kept is not None:
            curves.append(Curve(**kept))
            continue
        seed = run_seed(spec.seed, todo.run)
        chosen = replace(recipe, lr=todo.lr, give_up=recipe.give_up if todo.may_stop else None)
        network = initial(spec.model, real, seed, device)
        helpers = taught if spec.soft == "batches" else []
        order, data = derived_seed("order", seed), source(todo.run).to(device)
        curves.append(train(network, data, chosen, order, there, helpers, ctx.check))
        ctx.checkpoint(f"curve/{place}", asdict(curves[-1]))
    records = [CurveRecord(**asdict(curve)) for curve in curves]
    return TrainingsResult(curves=records, device=device_name(device))


def _source(
    spec: Trainings, real: Parts, taught: list[nn.Module], ctx: RunContext
) -> Callable[[int], Examples]:
    """What each run is trained on."""
    if spec.source == "full":
        return lambda _: real.train
    assert spec.ipc is not None
    ipc = spec.ipc
    if spec.source == "candidate":
        assert spec.candidate is not None
        data = candidates.load(spec.candidate, real.real, ipc, ctx).data
        own = plan.without_targets(data) if spec.hard else data
        return lambda _: own

    def subset(run: int) -> Examples:
        drawn = real.subset(ipc, spec.seed, run)
        if spec.soft == "stored":
            drawn.targets = teachers.soft_targets(taught, drawn.images)
        return drawn

    return subset


def run_teacher(spec: TeacherTraining, ctx: RunContext) -> TeacherResult:
    """Train a network on the real training set and keep its weights."""
    device = device_of(spec.device)
    with one_thread():
        real = parts.load(spec.real.dataset, spec.real.held_out, ctx)
        seed = run_seed(spec.seed, 0)
        network = initial(spec.model, real, seed, device)
        recipe: Recipe = _RECIPE.validate_python(spec.recipe)
        curve = train(network, real.train.to(device), recipe, seed, check=ctx.check)
        network.eval()
        found = accuracy(network, real.real.test.to(device), ctx.check)
    buffer = BytesIO()
    np.savez(buffer, **{name: v.cpu().numpy() for name, v in network.state_dict().items()})
    ctx.save_artifact("weights.npz", buffer.getvalue(), "application/x-npz")
    return TeacherResult(accuracy=found, seconds=curve.seconds)
