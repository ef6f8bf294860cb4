"""Engines do what the sequential one does, whatever the network, the labels and the order."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn

from methods.errors import JobError
from methods.local import LocalContext
from methods.rank_distilled_dataset.children import engine_choice
from methods.rank_distilled_dataset.children.engine_choice import fastest
from methods.rank_distilled_dataset.children.setup import device_of
from methods.rank_distilled_dataset.children.spec import Probed
from methods.rank_distilled_dataset.data import datasets
from methods.rank_distilled_dataset.data.augment import Augment
from methods.rank_distilled_dataset.data.examples import Examples
from methods.rank_distilled_dataset.job import run as rank
from methods.rank_distilled_dataset.networks.networks import build
from methods.rank_distilled_dataset.spec import Dataset, Spec
from methods.rank_distilled_dataset.train_settings import EngineName
from methods.rank_distilled_dataset.training import engines
from methods.rank_distilled_dataset.training.engines import train_all
from methods.rank_distilled_dataset.training.session import Curve, Recipe, Session, one_thread
from methods.rank_distilled_dataset.training.stacking import train_stacked

CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
#: 25 images in batches of 10, so that the last batch is of another size.
RECIPE = Recipe(6, 0.02, batch_size=10, step_size=4, evaluate=(2, 4))
SOFT = Recipe(
    6,
    1e-3,
    batch_size=10,
    optimiser="adamw",
    schedule="cosineannealing",
    loss="kl",
    loss_options={"temperature": 4.0},
    augment=Augment("dsa"),
    evaluate=(2, 4),
)
CASES = {
    "instance norm": ("ConvNet-2-W16", RECIPE, False),
    "batch norm": ("ConvNet-2-BN-W16", RECIPE, False),
    "teachers, augmentation": ("ConvNet-2-W16", SOFT, True),
    "no convolution": ("MLP", RECIPE, False),
}
#: The compiler imports what is deprecated.
COMPILED = pytest.param(
    "compiled", marks=[pytest.mark.filterwarnings("ignore::DeprecationWarning"), pytest.mark.system]
)
ENGINES: list[Any] = ["stacked", COMPILED, pytest.param("graph", marks=CUDA)]


def images(count: int, seed: int, device: torch.device) -> Examples:
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randn(count, 3, 16, 16, generator=generator)
    return Examples(pixels, torch.arange(count) % 10).to(device)


def run(
    engine: EngineName,
    model: str,
    recipes: Sequence[Recipe],
    taught: bool,
    device: torch.device,
    memory: torch.memory_format = torch.contiguous_format,
) -> tuple[list[Curve], list[nn.Module]]:
    networks: dict[int, nn.Module] = {}
    teachers = [build("ConvNet-2-W16", (3, 16, 16), 10, seed=99).to(device)] if taught else []

    def make(place: int, kind: type[Session]) -> Session:
        networks[place] = build(model, (3, 16, 16), 10, seed=place).to(device)
        networks[place].to(memory_format=memory)
        data = images(25, 5 + place, device)
        return kind(networks[place], data, recipes[place], place, teachers)

    trainings = [lambda kind, k=k: make(k, kind) for k in range(len(recipes))]
    curves: dict[int, Curve] = {}
    with one_thread():
        train_all(
            engine, trainings, {"test": images(60, 1, device)}, lambda: None, curves.__setitem__
        )
    assert sorted(curves) == list(range(len(recipes)))
    return [curves[k] for k in sorted(curves)], [networks[k] for k in sorted(networks)]


@pytest.mark.timeout(300)  # a compiler starts
@pytest.mark.parametrize("device", ["cpu", pytest.param("gpu", marks=CUDA)])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("engine", ENGINES)
def test_an_engine_trains_like_the_sequential_one(
    engine: EngineName, case: str, device: Any
) -> None:
    if engine == "graph" and device == "cpu":
        pytest.skip("graphs are CUDA's")
    if engine == "compiled" and case != "instance norm":
        pytest.skip("one case: compiling takes its time")
    model, recipe, taught = CASES[case]
    where = device_of(device)
    recipes = [Recipe(**{**vars(recipe), "lr": recipe.lr * (1 + k)}) for k in range(3)]
    wanted, networks = run("sequential", model, recipes, taught, where)
    found, others = run(engine, model, recipes, taught, where)
    for one, other in zip(wanted, found, strict=True):
        assert other.epochs == one.epochs == [2, 4, 6]
        # Convolutions of a GPU round to ten bits by default, each kernel in its own way.
        assert other.loss == pytest.approx(one.loss, rel=1e-4 if device == "cpu" else 2e-3)
        # 60 images: one on the edge may fall to either side.
        assert other.accuracy["test"] == pytest.approx(one.accuracy["test"], abs=0.017)
    for network, like in zip(networks, others, strict=True):
        for name, tensor in network.state_dict().items():
            off = 1e-3 if device == "cpu" else 5e-3
            torch.testing.assert_close(like.state_dict()[name], tensor, rtol=1e-2, atol=off)


def test_the_order_of_weights_in_memory_changes_nothing() -> None:
    """Fused optimisers read a gradient in that order, whatever its strides."""
    where, recipes = torch.device("cpu"), [RECIPE] * 2
    wanted, _ = run("sequential", "ConvNet-2-W16", recipes, False, where)
    found, _ = run("stacked", "ConvNet-2-W16", recipes, False, where, torch.channels_last)
    for one, other in zip(wanted, found, strict=True):
        assert other.loss == pytest.approx(one.loss, rel=1e-4)


def test_a_stacked_training_gives_up_alone() -> None:
    recipes = [
        Recipe(6, 0.02, batch_size=10, step_size=4, evaluate=(2, 4), give_up=give_up)
        for give_up in (None, 1.1)
    ]
    (going, stopped), _ = run("stacked", "ConvNet-2-W16", recipes, False, torch.device("cpu"))
    (alone, _), _ = run("sequential", "ConvNet-2-W16", recipes, False, torch.device("cpu"))
    assert (going.epochs, stopped.epochs, stopped.stopped) == ([2, 4, 6], [2], True)
    assert going.loss == pytest.approx(alone.loss, rel=1e-4)


def test_fewer_go_side_by_side_where_there_is_no_room_for_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    widths: list[int] = []

    def crowded(sessions: Sequence[Session], *others: Any) -> list[Curve]:
        widths.append(len(sessions))
        if len(sessions) > 2:
            raise torch.OutOfMemoryError
        return train_stacked(sessions, *others)

    monkeypatch.setattr(engines, "train_stacked", crowded)
    cpu, recipes = torch.device("cpu"), [RECIPE] * 5
    found, _ = run("stacked", "ConvNet-2-W16", recipes, False, cpu)
    assert widths == [5, 2, 2, 1]
    wanted, _ = run("sequential", "ConvNet-2-W16", recipes, False, cpu)
    for one, other in zip(wanted, found, strict=True):
        assert other.loss == pytest.approx(one.loss, rel=1e-4)


def test_graphs_are_for_gpus() -> None:
    with pytest.raises(JobError, match="needs a GPU"):
        run("graph", "ConvNet-2-W16", [RECIPE], False, torch.device("cpu"))


def probed(**seconds: tuple[float, float]) -> dict[EngineName, Probed]:
    return {name: Probed(start=a, step=b) for name, (a, b) in seconds.items()}  # type: ignore[misc]


def test_the_fastest_engine_is_the_one_that_ends_first() -> None:
    found = probed(sequential=(0, 0.02), compiled=(30, 0.01))
    assert fastest(found, 2_000) == "sequential"
    assert fastest(found, 4_000) == "compiled"
    assert fastest(probed(sequential=(0, 1), stacked=(0, 1)), 5) == "sequential", "of equal ones"
    found["compiled"].differs = 0.5
    assert fastest(found, 4_000) == "sequential", "what does something else is out"
    found["compiled"] = Probed(problem="no compiler")
    assert fastest(found, 4_000) == "sequential"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.timeout(300)
def test_long_work_is_probed_once_for_all_jobs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_choice, "PROBE_FROM", {"cpu": 0.0, "gpu": 0.0})
    # A choice that no measurement of this machine makes.
    monkeypatch.setattr(engine_choice, "fastest", lambda found, steps: sorted(found)[-1])
    real = datasets.load(Dataset(name="digits"), None).train  # type: ignore[arg-type]
    rows = datasets.draw_subset(real.labels.numpy(), 1, seed=1)
    np.savez(tmp_path / "c.npz", real=real.images[rows].numpy())
    given = {
        "ipc": 1,
        "candidates": [{"name": "real", "images": "c.npz"}],
        "models": ["ConvNet-2-W16"],
        "runs": 2,
        "lr_grid": [0.05],
        "train": {"epochs": 10},
        "full_data": {"accuracy": 0.9},
    }
    spec = Spec.model_validate(given)
    result = rank(spec, LocalContext(tmp_path, spec))
    assert result.work.engines == {"stacked": 4}
    probes = {
        path: json.loads(path.read_text())["found"]
        for path in (tmp_path / "children").glob("*/result.json")
        if "found" in path.read_text()
    }
    assert len(probes) == 1, "candidate and baseline are alike to an engine"
    (found,) = probes.values()
    assert set(found) == {"sequential", "compiled", "stacked"}
    assert found["sequential"]["differs"] == 0
    assert 0 < found["stacked"]["differs"] < engine_choice.AGREES
    again = rank(spec.model_copy(update={"seed": 1}), LocalContext(tmp_path, spec))
    assert again.work.restored == 0
    assert sum("found" in p.read_text() for p in (tmp_path / "children").glob("*/result.json")) == 1
    plain = spec.model_copy(update={"engine": "sequential"})
    alone = rank(plain, LocalContext(tmp_path / "alone", plain, inputs=tmp_path))
    row, like = result.leaderboards[0].rows[0], alone.leaderboards[0].rows[0]
    assert row.accuracy.mean == pytest.approx(like.accuracy.mean, abs=0.01)
    assert alone.work.engines == {"sequential": 4}


def test_a_graph_on_a_cpu_is_refused_at_once() -> None:
    given = {"ipc": 1, "candidates": [{"name": "c", "images": "c.npz"}], "engine": "graph"}
    with pytest.raises(ValidationError, match="needs device `gpu`"):
        Spec.model_validate(given)
