"""Trains a bundle of networks, or a teacher; each training is kept as soon as it is done."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial

from pydantic import TypeAdapter
from torch import nn

from methods.arrays.npz import savez
from methods.context import RunContext
from methods.rank_distilled_dataset.children import teachers
from methods.rank_distilled_dataset.children.setup import (
    device_name,
    device_of,
    initial,
    run_seed,
    teacher_seed,
)
from methods.rank_distilled_dataset.children.spec import (
    CurveRecord,
    TeacherResult,
    TeacherTraining,
    Training,
    Trainings,
    TrainingsResult,
)
from methods.rank_distilled_dataset.data import candidates, splits
from methods.rank_distilled_dataset.data.examples import Examples, without_targets
from methods.rank_distilled_dataset.data.splits import Parts
from methods.rank_distilled_dataset.training.engines import train_all
from methods.rank_distilled_dataset.training.session import (
    Curve,
    Recipe,
    Session,
    accuracy,
    late,
    one_thread,
    train,
)
from methods.resume import ResumeStore
from methods.seeds import derived_seed

_RECIPE = TypeAdapter(Recipe)


def run(spec: Trainings, ctx: RunContext) -> TrainingsResult:
    """Do the trainings of a bundle; see `Trainings`."""
    with one_thread():
        return _run(spec, ctx)


def _run(spec: Trainings, ctx: RunContext) -> TrainingsResult:
    device, recipe = device_of(spec.device), _RECIPE.validate_python(spec.recipe)
    real = splits.load(spec.real.dataset, spec.real.held_out, ctx)
    evaluated = real.tested if spec.source == "full" else real.evaluated
    recipe = replace(recipe, late=late(evaluated))
    there = {name: found.to(device) for name, found in evaluated.items()}
    taught = [] if spec.teachers is None else teachers.load(spec.teachers, real, device, ctx)
    source = _source(spec, real, taught, ctx)
    helpers = taught if spec.soft == "batches" else []

    def make(todo: Training, kind: type[Session]) -> Session:
        seed = run_seed(spec.seed, todo.run)
        chosen = replace(recipe, lr=todo.lr, give_up=recipe.give_up if todo.prunable else None)
        network = initial(spec.model, real, seed, device)
        data = source(todo.run).to(device)
        return kind(network, data, chosen, derived_seed("order", seed), helpers)

    store = ResumeStore(ctx, spec.model_dump_json())
    kept = {place: store.find_value(f"curve/{place}") for place in range(len(spec.todo))}
    curves = {place: Curve(**found) for place, found in kept.items() if found is not None}
    missing = [place for place in kept if place not in curves]

    def done(at: int, curve: Curve) -> None:
        place = missing[at]
        curves[place] = curve
        store.keep_value(f"curve/{place}", asdict(curve))
        ctx.progress("training", len(curves), len(spec.todo), "trainings")

    ctx.progress("training", len(curves), len(spec.todo), "trainings")
    makers = [partial(make, spec.todo[place]) for place in missing]
    train_all(spec.engine, makers, there, ctx.check, done)
    records = [CurveRecord(**asdict(curves[place])) for place in kept]
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
        own = without_targets(data) if spec.hard else data
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
        real = splits.load(spec.real.dataset, spec.real.held_out, ctx)
        seed = teacher_seed(spec.seed, spec.place)
        network = initial(spec.model, real, seed, device)
        recipe: Recipe = _RECIPE.validate_python(spec.recipe)
        curve = train(network, real.train.to(device), recipe, seed, check=ctx.check)
        network.eval()
        found = accuracy(network, real.real.test.to(device), ctx.check)
    data = savez(**{name: v.cpu().numpy() for name, v in network.state_dict().items()})
    ctx.save_artifact("weights.npz", data, "application/x-npz")
    return TeacherResult(accuracy=found, seconds=curve.seconds)
