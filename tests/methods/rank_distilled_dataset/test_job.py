"""The job: leaderboards, protocols, sharing, resuming and what a request may not ask for."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from methods.children import content_key
from methods.errors import JobCancelled, JobError
from methods.jobtype import InputRef
from methods.local import LocalContext
from methods.rank_distilled_dataset.children import bundles
from methods.rank_distilled_dataset.children.bundles import TrainingKey
from methods.rank_distilled_dataset.children.job import run as train_distilled
from methods.rank_distilled_dataset.children.setup import run_seed, teacher_seed
from methods.rank_distilled_dataset.children.spec import TRAININGS
from methods.rank_distilled_dataset.data import datasets, splits
from methods.rank_distilled_dataset.data.images import read_picture
from methods.rank_distilled_dataset.job import run
from methods.rank_distilled_dataset.networks.networks import build
from methods.rank_distilled_dataset.presets import PRESETS, settings
from methods.rank_distilled_dataset.protocol import experiment, leaderboard, plan, scores
from methods.rank_distilled_dataset.result import Result
from methods.rank_distilled_dataset.spec import JOB, Dataset, FullData, Spec
from methods.rank_distilled_dataset.train_settings import EngineName, Train

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Candidates on digits with one image a class."""
    folder = tmp_path_factory.mktemp("inputs")
    real = datasets.load(Dataset(name="digits"), None)  # type: ignore[arg-type]
    images, labels = real.train.images.numpy(), real.train.labels.numpy()
    means = np.stack([images[labels == c].mean(axis=0) for c in range(10)])
    rows = datasets.draw_subset(labels, 1, seed=77)
    noise = RNG.normal(size=means.shape).astype(np.float32)
    soft = np.full((10, 10), -2.0, dtype=np.float32) + 6 * np.eye(10, dtype=np.float32)
    np.savez(
        folder / "c.npz",
        means=means,
        real=images[rows],
        noise=noise,
        soft=soft,
        flat=np.zeros_like(means),
    )
    return folder


def spec_of(names: list[str], **fields: Any) -> Spec:
    given = {
        "ipc": 1,
        "candidates": [{"name": n, "images": "c.npz", "array": n} for n in names],
        "models": ["ConvNet-2-W16"],
        "runs": 3,
        "lr_grid": [0.01, 0.1],
        "train": {"epochs": 12},
        "full_data": {"accuracy": 0.9},
    }
    return Spec.model_validate({**given, **fields})


def rank(spec: Spec, folder: Path, inputs: Path) -> Result:
    result = run(spec, LocalContext(folder, spec, inputs=inputs))
    return Result.model_validate_json(result.model_dump_json())


def scored(result: Result) -> dict[str, Any]:
    """The rows without what depends on the other candidates."""
    others = {"p_first", "rank", "behind"}
    return {row.name: row.model_dump(exclude=others) for row in result.leaderboards[0].rows}


@pytest.fixture(scope="module")
def ranked(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Path]:
    folder = tmp_path_factory.mktemp("ranked")
    return rank(spec_of(["noise", "means", "real"]), folder, inputs), folder


def test_the_leaderboard(ranked: tuple[Result, Path]) -> None:
    result, folder = ranked
    board = result.leaderboards[0]
    assert [row.name for row in board.rows] == ["means", "real", "noise"]
    assert [row.rank for row in board.rows] == [1, 2, 3]
    for row in board.rows:
        assert row.lrs is not None
        assert row.ior is not None
        assert row.accuracy_random is not None
        assert row.lrs.ci95 is not None
        own, random = np.array(row.accuracy.runs), np.array(row.accuracy_random.runs)
        found = scores.label_robust(0.9, own, own, random)
        np.testing.assert_allclose(row.lrs.runs, found.lrs)
        np.testing.assert_allclose(row.ior.runs, own - random)
        assert row.lrs.mean == pytest.approx(float(np.mean(row.lrs.runs)))
        assert row.lrs.ci95[0] < row.lrs.mean < row.lrs.ci95[1]
        assert 0 <= row.accuracy.mean <= 1
        assert row.lr in (0.01, 0.1)
        assert row.accuracy.mean == pytest.approx(row.accuracy_by_lr[f"{row.lr:g}"])
    assert board.rows[0].accuracy_random == board.rows[2].accuracy_random, "shared baselines"
    assert board.rows[0].p_first is not None
    assert board.rows[0].p_first > 0.95
    assert board.rows[0].behind is None
    behind = board.rows[2].behind
    assert behind is not None
    np.testing.assert_allclose(
        behind.runs, np.array(board.rows[0].lrs.runs) - np.array(board.rows[2].lrs.runs)
    )
    assert board.win is not None
    np.testing.assert_allclose(np.array(board.win) + np.array(board.win).T, 1)
    assert any("came with the request" in text for text in result.warnings)
    assert result.dataset.classes == [str(d) for d in range(10)]
    assert result.dataset.held_out + result.dataset.train == 1397
    assert result.work.trained == 4 * 3 * 2
    titles = [figure.title for figure in result.figures]
    assert [title.split(" (")[0] for title in titles] == [
        "Leaderboard",
        "Learning curves",
        "Learning-rate sensitivity",
    ]
    picture = (folder / result.artifacts["grid/means"].id).read_bytes()
    assert read_picture(picture, "grid").shape[2] == 1
    table = (folder / result.artifacts["leaderboard"].id).read_text().splitlines()
    assert len(table) == 1 + 3 * 3
    assert table[1].startswith('ConvNet-2-W16,"means",0,')
    lines = (folder / result.artifacts["curves"].id).read_text().splitlines()
    assert len(lines) == 2 * 3 * 3 * 2
    assert json.loads(lines[0])["epochs"] == [3, 6, 9, 12]


def test_order_of_candidates_and_copies_change_nothing(
    ranked: tuple[Result, Path], inputs: Path, tmp_path: Path
) -> None:
    spec = spec_of(["real", "means", "noise"])
    twin = spec.candidates[1].model_copy(update={"name": "twin"})
    spec = spec.model_copy(update={"candidates": [*spec.candidates, twin]})
    context = LocalContext(ranked[1], spec, inputs=inputs)
    result = run(spec, context)
    rows = scored(result)
    for name, row in scored(ranked[0]).items():
        assert rows[name] == row
    assert [row.rank for row in result.leaderboards[0].rows] == [1, 1, 3, 4]
    twins = {row.name for row in result.leaderboards[0].rows[:2]}
    assert twins == {"means", "twin"}
    assert result.work.trained == 0, "its curves were kept by the first job"
    assert result.work.restored == 4 * 3 * 2
    assert result.leaderboards[0].win is not None
    assert result.leaderboards[0].win[0][1] == 0.5


class KilledError(Exception):
    """The worker is gone."""


class Mortal(LocalContext):
    """Dies when it has kept so many curves, like a worker between two trainings."""

    def __init__(self, lives: int, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.kept: list[str] = []
        self._lives = lives

    def checkpoint(self, key: str, value: Any) -> None:
        super().checkpoint(key, value)
        self.kept.append(key)
        if len(self.kept) == self._lives:
            raise KilledError


def laid_out(spec: Spec, inputs: Path) -> list[TrainingKey]:
    data = splits.load(spec.dataset, 0.2, LocalContext(inputs))
    evaluated = {name: len(found.labels) for name, found in data.evaluated.items()}
    sizes = bundles.Sizes(data.real.shape, 10, len(data.train.labels), evaluated)
    taught = experiment.teachers_of(spec)
    return [
        w for model in spec.models for w in experiment.lay_out(spec, model, sizes, taught).wanted
    ]


def bundled(wanted: list[TrainingKey], width: int = 1) -> list[list[TrainingKey]]:
    groups = bundles.by_origin(wanted)
    return bundles.bundles(groups.values(), [width] * len(groups))


def test_a_killed_bundle_goes_on_without_training_anything_twice(
    inputs: Path, tmp_path: Path
) -> None:
    (bundle, _) = bundled(laid_out(spec_of(["means"]), inputs))
    spec = bundles.trainings(bundle, "sequential")
    assert len(spec.todo) == 6
    kept: list[str] = []
    for lives in (2, 3):
        context = Mortal(lives, tmp_path / "killed", spec, inputs=inputs)
        with pytest.raises(KilledError):
            train_distilled(spec, context)
        kept += context.kept
    last = Mortal(0, tmp_path / "killed", spec, inputs=inputs)
    found = train_distilled(spec, last)
    kept += last.kept
    assert len(kept) == len(set(kept)) == 6
    whole = train_distilled(spec, LocalContext(tmp_path / "whole", spec, inputs=inputs))
    for one, other in zip(found.curves, whole.curves, strict=True):
        assert one.model_copy(update={"seconds": 0}) == other.model_copy(update={"seconds": 0})


def test_bundles_cost_about_the_same_and_do_not_depend_on_one_another(inputs: Path) -> None:
    change: Any = {"train": {"epochs": 200}, "runs": 9, "full_data": {"epochs": 3000}}
    few = laid_out(spec_of(["means"], **change), inputs)
    more = laid_out(spec_of(["noise", "means", "real"], **change), inputs)
    found, again = ({tuple(b) for b in bundled(wanted)} for wanted in (few, more))
    assert found < again, "a job with more candidates has the bundles of the one before"
    costs = [sum(one.seconds for one in bundle) for bundle in bundled(more)]
    assert costs == sorted(costs, reverse=True)
    small = [cost for cost, bundle in zip(costs, bundled(more), strict=True) if len(bundle) > 1]
    assert min(small) > 0.8 * bundles.BUNDLE_SECONDS
    assert max(small) < 3 * bundles.BUNDLE_SECONDS
    assert costs[0] > max(small), "a long training stands alone"
    assert sorted(map(id, (w for b in bundled(few) for w in b))) == sorted(map(id, set(few)))


def test_bundling_changes_no_digit(
    ranked: tuple[Result, Path], inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundles, "BUNDLE_SECONDS", 1e-9)
    result = rank(spec_of(["noise", "means", "real"]), tmp_path, inputs)
    assert len(list((tmp_path / "children").iterdir())) == 24, "each training by itself"
    assert result.leaderboards == ranked[0].leaderboards


def test_the_leaderboard_so_far_is_shown(inputs: Path, tmp_path: Path) -> None:
    shown: list[Any] = []

    class Watched(LocalContext):
        def partial(self, result: dict[str, Any]) -> None:
            shown.append(json.loads(json.dumps(result)))

    spec = spec_of(["noise", "means"])
    result = run(spec, Watched(tmp_path, spec, inputs=inputs))
    names = [[row["name"] for row in one["leaderboards"][0]["rows"]] for one in shown]
    assert names[0] == [], "the random subsets come first"
    assert names[-1] == ["means", "noise"]
    assert [len(found) for found in names] == sorted(len(found) for found in names)
    last = shown[-1]["leaderboards"][0]["rows"]
    rows = result.leaderboards[0].rows
    assert [row["score"] for row in last] == [row.score for row in rows]
    assert [row["accuracy"] for row in last] == [row.accuracy.mean for row in rows]


def test_one_more_candidate_trains_only_that_one(inputs: Path, tmp_path: Path) -> None:
    first, second = spec_of(["means"]), spec_of(["means", "real"])
    rank(first, tmp_path, inputs)
    result = rank(second, tmp_path, inputs)
    assert result.work.trained == 3 * 2
    assert result.work.candidate_seconds["real"] > 0


def test_a_job_stops_when_it_is_told(inputs: Path, tmp_path: Path) -> None:
    class Cancelled(LocalContext):
        def check(self) -> None:
            raise JobCancelled

    spec = spec_of(["means"])
    with pytest.raises(JobCancelled):
        run(spec, Cancelled(tmp_path, spec, inputs=inputs))


def test_the_official_protocol(inputs: Path, tmp_path: Path) -> None:
    spec = spec_of(["means"], protocol="official", train={"epochs": 20}, runs=2)
    given = spec.candidates[0].model_copy(update={"syn_lr": 0.01})
    spec = spec.model_copy(update={"candidates": [given]})
    result = rank(spec, tmp_path, inputs)
    row = result.leaderboards[0].rows[0]
    assert list(row.accuracy_by_lr) == ["0.01"]
    assert result.dataset.held_out == 0
    lines = [
        json.loads(line)
        for line in (tmp_path / result.artifacts["curves"].id).read_text().splitlines()
    ]
    assert all(line["epochs"] == [10, 20] for line in lines)
    own = [max(x["accuracy"]["test"]) for x in lines if x["set"] == "candidate"]
    assert row.accuracy.runs == own
    random = [
        max(max(x["accuracy"]["test"]) for x in lines if x["set"] == "random" and x["run"] == i)
        for i in range(2)
    ]
    assert row.accuracy_random is not None
    assert row.accuracy_random.runs == random
    assert any("favours random" in text for text in result.warnings)


def test_full_data_is_trained_and_shared(inputs: Path, tmp_path: Path) -> None:
    spec = spec_of(
        ["means", "real"],
        full_data={"epochs": 5, "lr": 0.1, "batch_size": 64},
        runs=2,
        lr_grid=[0.1],
    )
    result = rank(spec, tmp_path, inputs)
    board = result.leaderboards[0]
    assert board.full is not None
    assert not board.full_given
    assert board.full.mean > 0.5
    assert result.work.trained == 2 + 2 * 3
    rows = {row.name: row for row in board.rows}
    assert rows["means"].comparable == rows["real"].comparable
    hlr = np.array(board.full.runs) - np.array(rows["real"].accuracy.runs)
    assert rows["real"].hlr is not None
    np.testing.assert_allclose(rows["real"].hlr.runs, hlr)


def test_soft_labels_and_both_scores(inputs: Path, tmp_path: Path) -> None:
    spec = spec_of(
        ["means", "real"],
        metrics=["lrs", "ars"],
        runs=2,
        lr_grid=[0.1],
        teacher={"models": ["ConvNet-2-W16"]},
    )
    raw = spec.model_dump()
    raw["candidates"][0]["labels"] = {"kind": "soft_S", "array": "soft", "input": "c.npz"}
    raw["candidates"][1]["labels"] = {"kind": "soft_M"}
    raw["train"] = {"epochs": 8, "augmentation": {"name": "dsa"}, "temperature": 4}
    spec = Spec.model_validate(raw)
    result = rank(spec, tmp_path, inputs)
    assert result.teachers["ConvNet-2-W16"] > 0.4
    for row in result.leaderboards[0].rows:
        assert None not in (row.lrs, row.ars, row.gain_bare)
        assert row.hlr is not None
        assert row.accuracy_hard is not None
        np.testing.assert_allclose(row.hlr.runs, 0.9 - np.array(row.accuracy_hard.runs))
    labels = {row.name: row.label_bytes for row in result.leaderboards[0].rows}
    assert labels == {"means": 400, "real": 0}
    # own, hard and bare of two candidates; own and bare of two random baselines; two runs each.
    assert result.work.trained == 2 * (2 * 3 + 2 * 2)
    assert any("LRS against ARS" in figure.title for figure in result.figures)
    again = rank(spec, tmp_path, inputs)
    assert again.work.trained == 0
    assert scored(again) == scored(result)


def test_teachers_come_from_weights(inputs: Path, tmp_path: Path) -> None:
    network = build("ConvNet-2-W16", (1, 8, 8), 10, seed=4)
    torch.save({"state_dict": network.state_dict()}, inputs / "t.pt")
    spec = spec_of(
        ["means"],
        metrics=["accuracy"],
        runs=1,
        lr_grid=[0.1],
        teacher={"models": ["ConvNet-2-W16"], "weights": ["t.pt"]},
    )
    raw = spec.model_dump()
    raw["candidates"][0]["labels"] = {"kind": "soft_M"}
    result = rank(Spec.model_validate(raw), tmp_path, inputs)
    assert result.teachers["ConvNet-2-W16"] < 0.4, "an untrained teacher"
    assert result.leaderboards[0].rows[0].lrs is None
    raw["teacher"]["models"] = ["ConvNet-3-W16"]
    with pytest.raises(JobError, match=r"lacks features\.8\.weight"):
        rank(Spec.model_validate(raw), tmp_path, inputs)


def test_fast_drops_hopeless_rates_and_several_models_have_an_overall_order(
    inputs: Path, tmp_path: Path
) -> None:
    spec = spec_of(
        ["means", "flat"],
        protocol="fast",
        lr_grid=[1e-5, 0.1],
        runs=2,
        models=["ConvNet-2-W16", "MLP"],
    )
    result = rank(spec, tmp_path, inputs)
    assert [board.model for board in result.leaderboards] == ["ConvNet-2-W16", "MLP"]
    assert result.overall == ["means", "flat"]
    assert any("flat: its accuracy" in text and "chance" in text for text in result.warnings)
    assert any("flat: all pixels are 0" in text for text in result.warnings)
    lines = (tmp_path / result.artifacts["curves"].id).read_text().splitlines()
    curves = [json.loads(line) for line in lines]
    assert all(curve["epochs"][-1] == 12 for curve in curves if curve["lr"] == 0.1)
    stopped = [curve for curve in curves if curve["stopped"]]
    assert stopped
    assert all(curve["epochs"] == [4] and curve["lr"] == 1e-5 for curve in stopped)
    assert result.leaderboards[0].rows[0].lr == 0.1


def test_large_test_sets_draw_the_curve_from_a_part(
    ranked: tuple[Result, Path], inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(splits, "MAX_CURVE", 100)
    monkeypatch.setattr(splits, "_kept", None)
    result = rank(spec_of(["means", "real", "noise"]), tmp_path, inputs)
    assert scored(result) == scored(ranked[0])
    lines = (tmp_path / result.artifacts["curves"].id).read_text().splitlines()
    for line in lines:
        accuracy = json.loads(line)["accuracy"]
        assert {name: len(found) for name, found in accuracy.items()} == {
            "held_out": 1,
            "test": 1,
            "curve": 4,
        }
    fast = spec_of(["means"], protocol="fast", lr_grid=[1e-5, 0.1])
    result = rank(fast, tmp_path, inputs)
    lines = (tmp_path / result.artifacts["curves"].id).read_text().splitlines()
    assert any(json.loads(line)["stopped"] for line in lines)
    assert all(len(json.loads(line)["accuracy"]["test"]) == 1 for line in lines)


def test_a_training_that_diverges_is_a_result_too(inputs: Path, tmp_path: Path) -> None:
    spec = spec_of(["noise"], models=["MLP"], lr_grid=[10.0], runs=2, train={"epochs": 40})
    context = LocalContext(tmp_path, spec, inputs=inputs)
    result = run(spec, context)
    lines = (tmp_path / result.artifacts["curves"].id).read_text().splitlines()
    assert any(None in json.loads(line)["loss"] for line in lines)
    files = list(tmp_path.rglob("checkpoint-*.json"))
    assert files
    for file in files:
        json.loads(file.read_text(), parse_constant=pytest.fail)
    assert rank(spec, tmp_path, inputs).work.trained == 0


def test_trainings_are_named_by_all_that_determines_them_and_nothing_else(inputs: Path) -> None:
    def name(spec: Spec, which: int = 0, engine: EngineName = "sequential") -> str:
        bundle = bundles.trainings([laid_out(spec, inputs)[which]], engine)
        digest = LocalContext(inputs)._digest
        return content_key(TRAININGS, bundle, digest, LocalContext(inputs).models)

    base = spec_of(["means"])
    shutil.copyfile(inputs / "c.npz", inputs / "copy.npz")
    named = base.candidates[0].model_copy(update={"name": "else"})
    copied = base.candidates[0].model_copy(update={"images": InputRef("copy.npz")})
    other: list[dict[str, Any]] = [
        {"candidates": [named]},
        {"candidates": [copied]},
        {"metrics": ["accuracy"]},
        {"runs": 5},
        {"lrs_lambda": 0.1},
        {"full_data": FullData(accuracy=0.5)},
    ]
    assert {name(base.model_copy(update=change)) for change in other} == {name(base)}
    changes: list[dict[str, Any]] = [
        {"models": ["MLP"]},
        {"train": Train(epochs=13)},
        {"seed": 1},
        {"device": "gpu"},
        {"held_out": 0.3},
        {"lr_grid": [0.02, 0.1]},
        {"dataset": Dataset(channels=3)},
        {"candidates": spec_of(["noise"]).candidates},
        {"protocol": "official"},
    ]
    keys = [name(base.model_copy(update=change)) for change in changes]
    keys += [name(base), name(base, 1), name(base, -1), name(base, engine="stacked")]
    assert len(set(keys)) == len(keys)


def test_presets_lie_between_the_job_and_the_candidate() -> None:
    spec = Spec.model_validate(
        {
            "dataset": {"name": "cifar10", "files": ["f"]},
            "ipc": 10,
            "candidates": [
                {
                    "name": "r",
                    "images": "f",
                    "preset": "rded",
                    "labels": {"kind": "soft_M"},
                    "train": {"epochs": 7},
                }
            ],
            "teacher": {"models": ["ConvNet-3"]},
            "train": {"momentum": 0.5},
        }
    )
    found = plan.train_settings(spec, spec.candidates[0])
    assert (found.optimiser, found.batch_size, found.temperature) == ("adamw", 50, 20)
    assert (found.epochs, found.momentum) == (7, 0.5)
    assert plan.given_rate(spec.candidates[0]) == 0.001


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("dataset", ["cifar10", "cifar100", "tiny-imagenet", "custom"])
@pytest.mark.parametrize("ipc", [1, 10, 50])
def test_presets_are_settings_of_a_training(preset: str, dataset: str, ipc: int) -> None:
    train = Train.model_validate(settings(preset, dataset, ipc))
    soft = PRESETS[preset].labels != "hard"
    # Matching methods are trained like the benchmark of DC, decoupled ones like SRe2L.
    assert (train.optimiser, train.schedule) == (
        ("adamw", "cosine") if PRESETS[preset].labels == "soft_M" else ("sgd", "step")
    )
    assert (train.augmentation.name == "none") == (preset == "dc")
    assert train.loss == ("mse_gt" if preset == "edc" else "sce" if preset == "datm" else "kl")
    assert train.temperature >= 20 or preset == "edc" or PRESETS[preset].labels != "soft_M"
    assert soft or train.temperature == Train().temperature


def test_presets_for_imagenet() -> None:
    """Batch sizes and losses of the published files."""
    found = {name: Train(**settings(name, "custom", 10)) for name in ("dwa", "g-vbsm", "edc")}
    assert [train.batch_size for train in found.values()] == [128, 512, 100]
    assert {train.epochs for train in found.values()} == {300}
    assert (found["edc"].mse_weight, found["edc"].ce_weight) == (1, 0.025)
    assert PRESETS["edc"].syn_lr == 0.001


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"models": ["ConvNet"]}, "needs a depth"),
        ({"lr_grid": [0.1, 0.01]}, "ascend"),
        ({"dataset": {"name": "cifar10"}}, "cifar10 needs files"),
        ({"dataset": {"name": "digits", "zca": True}}, "go together"),
        ({"metrics": ["lrs", "lrs"]}, "once each"),
        ({"teacher": {"models": ["MLP"], "weights": ["a", "b"]}}, "all teachers or for none"),
    ],
)
def test_wrong_requests_are_refused(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        spec_of(["means"], **change)


def test_candidates_have_names_of_their_own_and_soft_ones_a_teacher() -> None:
    with pytest.raises(ValidationError, match="there twice"):
        spec_of(["means", "means"])
    raw = spec_of(["means"]).model_dump()
    raw["candidates"][0]["labels"] = {"kind": "soft_M"}
    with pytest.raises(ValidationError, match="need `teacher`"):
        Spec.model_validate(raw)


def test_a_network_that_does_not_fit_the_images(inputs: Path, tmp_path: Path) -> None:
    with pytest.raises(JobError, match="at least 16x16, these are 8x8") as caught:
        rank(spec_of(["means"], models=["ConvNet-4"]), tmp_path, inputs)
    assert caught.value.code == "input_invalid"


def test_the_example_is_a_request() -> None:
    JOB.spec.model_validate(JOB.example)


def test_another_weight_of_the_score_trains_nothing(
    ranked: tuple[Result, Path], inputs: Path
) -> None:
    first, folder = ranked
    names = ["noise", "means", "real"]
    other = rank(spec_of(names, lrs_lambda=0.0), folder, inputs)
    assert (other.work.trained, other.work.restored > 0) == (0, True)
    before, after = first.leaderboards[0].rows, other.leaderboards[0].rows
    assert {row.comparable for row in before}.isdisjoint(row.comparable for row in after)
    for row in after:
        assert row.lrs is not None
        assert row.hlr is not None
        np.testing.assert_allclose(row.lrs.runs, scores.normalise(-np.array(row.hlr.runs)))


@pytest.mark.parametrize(
    "changed",
    [
        {"metrics": ["accuracy"]},
        {"lrs_lambda": 0.1},
        {"held_out": 0.3},
        {"lr_grid": [0.01, 0.05, 0.1]},
        {"train": {"epochs": 13}},
        {"protocol": "official"},
        {"runs": 4},
        {"seed": 1},
    ],
)
def test_scores_of_other_settings_are_not_comparable(
    ranked: tuple[Result, Path], changed: dict[str, Any]
) -> None:
    real = datasets.load(Dataset(name="digits"), None)  # type: ignore[arg-type]
    full = np.full(3, 0.9)
    compared = experiment.ModelComparison("ConvNet-2-W16", [], [], full)
    digests = {
        leaderboard.comparable(spec_of(["means"], **fields), real, compared)
        for fields in ({}, changed)
    }
    assert len(digests) == 2
    same = leaderboard.comparable(spec_of(["noise", "real"]), real, compared)
    assert same == leaderboard.comparable(spec_of(["means"]), real, compared)


def test_no_network_begins_where_another_does(inputs: Path, tmp_path: Path) -> None:
    spec = spec_of(
        ["means"],
        candidates=[
            {"name": "m", "images": "c.npz", "array": "means", "labels": {"kind": "soft_M"}}
        ],
        teacher={"models": ["ConvNet-2-W16", "ConvNet-2-W16"]},
        metrics=["accuracy"],
        runs=2,
        full_data={"epochs": 1},
    )
    taught = experiment.teachers_of(spec)
    assert taught is not None
    teachers = {teacher_seed(one.seed, one.place) for one in taught.training}
    students = {run_seed(spec.seed, run) for run in range(spec.runs)}
    assert len(teachers) == 2
    assert not teachers & students
    result = rank(spec, tmp_path, inputs)
    assert set(result.teachers) == {"ConvNet-2-W16 (1)", "ConvNet-2-W16 (2)"}
    assert len(set(result.teachers.values())) == 2


def test_progress_is_told_by_the_estimated_cost(inputs: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    spec = spec_of(["means"], full_data={"epochs": 30}, runs=2)

    def tell(phase: str, at: int, of: int, unit: str) -> None:
        if unit == "parts of the work":
            seen.append((at, of))

    run(spec, LocalContext(tmp_path, spec, tell, inputs=inputs))
    marks = [at / of for at, of in seen]
    assert marks == sorted(marks)
    assert (marks[0], marks[-1]) == (0, 1)
    # Trainings on all data go first, and are most of the work.
    assert marks[1] > 0.3
