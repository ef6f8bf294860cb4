"""Distilled sets: the laws of the methods, and the job from its request to a ranking."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from methods.distill_dataset import job, matching, picking
from methods.distill_dataset.job import run
from methods.distill_dataset.spec import JOB, Result, Spec
from methods.errors import JobError
from methods.local import LocalContext
from methods.rank_distilled_dataset.data import datasets
from methods.rank_distilled_dataset.data.augment import Augment
from methods.rank_distilled_dataset.data.images import read_picture
from methods.rank_distilled_dataset.job import run as rank
from methods.rank_distilled_dataset.spec import Dataset
from methods.rank_distilled_dataset.spec import Spec as RankSpec
from methods.rank_distilled_dataset.training.session import one_thread

REAL = datasets.load(Dataset(name="digits"), None)  # type: ignore[arg-type]
IMAGES, LABELS = REAL.train.images.numpy(), REAL.train.labels.numpy()


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    with one_thread():
        yield


def distil(folder: Path, **fields: Any) -> tuple[Result, np.ndarray]:
    spec = Spec.model_validate({"ipc": 2, "model": "ConvNet-2-W8", **fields})
    result = run(spec, LocalContext(folder, spec))
    with np.load(folder / result.images.id, allow_pickle=False) as file:
        assert file["labels"].tolist() == np.repeat(np.arange(10), spec.ipc).tolist()
        return result, file["images"]


def test_class_means(tmp_path: Path) -> None:
    _, one = distil(tmp_path, method="class-means", ipc=1)
    for kind in range(10):
        np.testing.assert_allclose(one[kind], IMAGES[kind == LABELS].mean(axis=0), atol=1e-5)
    _, many = distil(tmp_path, method="class-means", ipc=4)
    sizes = [[len(p) for p in np.array_split(np.flatnonzero(k == LABELS), 4)] for k in range(10)]
    weighted = (many.reshape(10, 4, -1) * np.array(sizes)[:, :, None]).sum(axis=1)
    totals = np.bincount(LABELS)[:, None]
    np.testing.assert_allclose(weighted / totals, one.reshape(10, -1), atol=1e-5)


def test_centroids_are_closer_than_means_of_random_parts(tmp_path: Path) -> None:
    def cost(images: np.ndarray) -> float:
        total = 0.0
        for kind, rows in enumerate(picking.rows_by_class(LABELS)):
            x = IMAGES[rows].reshape(len(rows), -1)
            c = images[3 * kind : 3 * kind + 3].reshape(3, -1)
            total += float(((x[:, None] - c[None]) ** 2).sum(axis=2).min(axis=1).sum())
        return total

    _, centroids = distil(tmp_path, method="k-means", ipc=3)
    _, means = distil(tmp_path, method="class-means", ipc=3)
    assert cost(centroids) < 0.9 * cost(means)


@given(st.integers(0, 10_000), st.integers(1, 6))
def test_herding_takes_the_best_next_row(seed: int, count: int) -> None:
    x = np.random.default_rng(seed).normal(size=(9, 3))
    found = picking.herd(x, count)
    assert len(set(found.tolist())) == count
    for step in range(count):
        before = found[:step].tolist()
        gaps = {
            row: np.linalg.norm(x[[*before, row]].mean(axis=0) - x.mean(axis=0))
            for row in set(range(9)) - set(before)
        }
        assert gaps[int(found[step])] == pytest.approx(min(gaps.values()), abs=1e-9)


@pytest.mark.parametrize(
    "fields",
    [{"method": "random"}, {"method": "herding"}, {"method": "herding", "space": "network"}],
)
def test_real_images_are_rows_of_the_training_set(tmp_path: Path, fields: dict[str, str]) -> None:
    result, images = distil(tmp_path, **fields)
    assert result.rows is not None
    np.testing.assert_array_equal(images, IMAGES[result.rows])
    assert LABELS[result.rows].tolist() == np.repeat(np.arange(10), 2).tolist()
    again, _ = distil(tmp_path, **fields)
    assert again.rows == result.rows
    picture = (tmp_path / result.grid.id).read_bytes()
    assert read_picture(picture, "grid").ndim == 3


def test_another_seed_draws_other_rows(tmp_path: Path) -> None:
    assert distil(tmp_path, method="random")[0].rows != (
        distil(tmp_path, method="random", seed=1)[0].rows
    )


def given_matching(**fields: Any) -> matching.Matching:
    base: dict[str, Any] = {
        "real": REAL.train,
        "ipc": 2,
        "classes": 10,
        "model": "ConvNet-2-W8",
        "lr": 1.0,
        "batch": 64,
        "augment": Augment("dsa", siamese=True),
        "seed": 0,
    }
    return matching.Matching(**{**base, **fields})


def test_matching_images_that_are_the_real_ones_have_no_loss() -> None:
    rows = np.concatenate([rows[:5] for rows in picking.rows_by_class(LABELS)])
    real = datasets.Examples(REAL.train.images[rows], REAL.train.labels[rows])
    setting = given_matching(real=real, ipc=5, batch=5, augment=Augment())
    state = matching.State(real.images.clone(), torch.zeros_like(real.images))
    assert matching.distribution_step(setting, state) == pytest.approx(0, abs=1e-6)
    np.testing.assert_allclose(state.images, real.images, atol=1e-3)
    state = matching.State(real.images.clone(), torch.zeros_like(real.images))
    loss = matching.gradient_step(setting, state, outer=1, inner=0, check=lambda: None)
    assert loss == pytest.approx(0, abs=1e-2)


def test_gradient_distance_counts_outputs_and_ignores_biases() -> None:
    generator = torch.Generator().manual_seed(0)
    weights, bias = torch.randn(4, 3, generator=generator), torch.randn(4, generator=generator)
    assert float(matching.gradient_distance([weights, bias], [2 * weights, -bias])) == (
        pytest.approx(0, abs=1e-6)
    )
    assert float(matching.gradient_distance([weights, bias], [-weights, bias])) == (
        pytest.approx(8, abs=1e-5)
    )


@pytest.mark.parametrize(("method", "lr"), [("dm", 1.0), ("dc", 0.1)])
def test_the_descent_follows_the_gradient_of_the_loss(method: str, lr: float) -> None:
    """A small step along the returned direction lowers the loss of the same network and draw."""
    setting = given_matching(lr=0.0, model="ConvNet-2-W8")
    start = REAL.train.images[picking.herd_classes(IMAGES.reshape(len(IMAGES), -1), LABELS, 2)]

    def loss_at(images: torch.Tensor) -> tuple[float, torch.Tensor]:
        state = matching.State(images.clone(), torch.zeros_like(images))
        if method == "dm":
            loss = matching.distribution_step(setting, state)
        else:
            loss = matching.gradient_step(setting, state, 1, 0, lambda: None)
        return loss, state.velocity

    before, gradient = loss_at(start)
    size = 1e-3 * before / float(gradient.square().sum())
    after, _ = loss_at(start - size * gradient)
    assert (before - after) / before == pytest.approx(1e-3, rel=0.2)


@pytest.mark.parametrize("method", ["dm", "dc"])
def test_an_interrupted_distillation_goes_on_where_it_was(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "KEEP_EVERY", -1.0)
    fields = {"method": method, "iterations": 4, "batch_real": 16, "outer": 2, "inner": 1}
    whole, expected = distil(tmp_path / "whole", **fields)

    class Mortal(LocalContext):
        def progress(self, phase: str, current: int, total: int, unit: str = "items") -> None:
            if phase == "distilling" and current == 2:
                raise KeyboardInterrupt

    spec = Spec.model_validate({"ipc": 2, "model": "ConvNet-2-W8", **fields})
    with pytest.raises(KeyboardInterrupt):
        run(spec, Mortal(tmp_path / "cut", spec))
    result, found = distil(tmp_path / "cut", **fields)
    np.testing.assert_array_equal(found, expected)
    assert result.loss == whole.loss
    assert len(result.loss) == 4


def test_distilled_sets_go_straight_into_a_ranking(tmp_path: Path) -> None:
    names = []
    for place, fields in enumerate(
        (
            {"method": "class-means"},
            {"method": "random"},
            {
                "method": "dm",
                "iterations": 30,
                "batch_real": 64,
                "augmentation": "none",
                "model": "ConvNet-2-W16",
            },
        )
    ):
        result, _ = distil(tmp_path / str(place), ipc=1, **fields)
        names.append((str(fields["method"]), str(tmp_path / str(place) / result.images.id)))
        assert result.value_space == "normalized"
    spec = RankSpec.model_validate(
        {
            "ipc": 1,
            "models": ["ConvNet-2-W16"],
            "runs": 3,
            "lr_grid": [0.1],
            "candidates": [{"name": name, "images": path} for name, path in names],
            "train": {"epochs": 12},
            "full_data": {"accuracy": 0.95},
        }
    )
    board = rank(spec, LocalContext(tmp_path / "rank", spec)).leaderboards[0]
    order = [row.name for row in board.rows]
    assert order.index("class-means") < order.index("random")
    assert order.index("dm") < order.index("random")


def test_what_is_refused(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="ipc is 999"):
        distil(tmp_path, method="random", ipc=999)
    with pytest.raises(JobError, match="at least 16x16, these are 8x8"):
        distil(tmp_path, method="dm", model="ConvNet-4")
    with pytest.raises(JobError, match="lower lr_images"):
        distil(
            tmp_path,
            method="dm",
            lr_images=1000,
            iterations=50,
            start="noise",
            batch_real=4,
            model="MLP",
        )
    with pytest.raises(ValidationError, match="without BN"):
        Spec.model_validate({"ipc": 1, "method": "dc", "model": "ConvNet-3-BN"})
    JOB.spec.model_validate(JOB.example)
