"""plan-augmentation on digits: plan, real images, trainings, restarts, and what is refused."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from methods.errors import JobError
from methods.inference.model_registry import ModelDeclaration, Models
from methods.local import LocalContext
from methods.plan_augmentation.child_jobs import GeneratorPart, ImagesPart
from methods.plan_augmentation.making import images as images_module
from methods.plan_augmentation.making.archive import folder_of, read_images
from methods.plan_augmentation.making.asking import shards
from methods.plan_augmentation.making.generator import run as train_generator
from methods.plan_augmentation.making.images import run as make_images
from methods.plan_augmentation.result import Result
from methods.plan_augmentation.spec import Spec
from methods.rank_distilled_dataset.data import datasets
from methods.rank_distilled_dataset.spec import Dataset
from methods.registry import load_registry
from tests.toys import tiny_diffusion

TRAIN = {"kind": "train", "channels": [16, 32], "steps": 300, "batch_size": 64}


def digits(folder: Path, rows: int = 200) -> Dataset:
    """Some digits as a data set of the user's own."""
    real = datasets.load(Dataset(name="digits", normalise="none"), None)  # type: ignore[arg-type]
    np.savez(
        folder / "digits.npz",
        x_train=real.train.images.numpy()[:rows],
        y_train=real.train.labels.numpy()[:rows],
        x_test=real.test.images.numpy(),
        y_test=real.test.labels.numpy(),
    )
    return Dataset.model_validate({"name": "custom", "files": [str(folder / "digits.npz")]})


def run(folder: Path, spec: dict[str, Any], ctx: LocalContext | None = None) -> Result:
    parsed = Spec.model_validate(spec)
    own = LocalContext(folder, parsed) if ctx is None else ctx
    found = load_registry()["plan-augmentation"].load_runner()(parsed, own)
    assert isinstance(found, Result)
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("job")
    spec = {
        "dataset": digits(folder).model_dump(),
        "mode": "generate",
        "factor": 2,
        "generator": TRAIN,
        "early": {"epochs": 3, "of": 40},
        "evaluate": {
            "epochs": 25,
            "runs": 2,
            "arms": ["plain", "upsample-2", "targeted", "random-part", "spread"],
        },
    }
    return run(folder, spec), folder, spec


@pytest.mark.timeout(300)
def test_everything_adds_up(whole: tuple[Result, Path, dict[str, Any]]) -> None:
    """No gain is asserted: whether there is one is what the job is to find out."""
    result, folder, _ = whole
    plan = result.plan
    assert plan.rows == 200
    assert plan.slow == sum(one.slow for one in plan.per_class)
    assert plan.new_images == plan.slow
    assert plan.set_size == 200 + plan.new_images == sum(one.size_after for one in plan.per_class)
    arms = {one.arm: one for one in result.evaluation}
    assert list(arms) == ["plain", "upsample-2", "targeted", "random-part", "spread"]
    assert {one.steps for one in arms.values()} == {-(-25 * 200 // 64)}
    assert arms["plain"].images == 200
    assert {arms[name].images for name in arms if name != "plain"} == {plan.set_size}
    assert arms["plain"].accuracy.value > 0.8
    assert result.verdict in ("helps", "no difference", "hurts")
    made = result.generated
    assert made is not None
    assert (made.images, made.failed) == (plan.new_images, 0)
    assert made.distance_to_source < made.distance_within_class
    assert made.label_kept is not None
    assert made.label_kept.generated.value >= 0.8
    with np.load(folder / "artifacts/augmented.npz") as arrays:
        assert arrays["x_train"].shape == (plan.set_size, 8, 8, 1)
        labels = arrays["y_train"]
        assert (labels == labels[arrays["source_row"]]).all()
    with np.load(folder / "artifacts/weights.npz") as arrays:
        assert int(arrays["repeats"].sum()) == plan.set_size
    names = zipfile.ZipFile(folder / "artifacts/images-00000.zip").namelist()
    assert "manifest.jsonl" in names
    assert all(name.startswith("train/") for name in names if name.endswith(".png"))
    lines = (folder / "artifacts/plan.csv").read_text().splitlines()
    assert len(lines) == 201


@pytest.mark.timeout(300)
def test_a_larger_factor_makes_the_new_images_only(
    whole: tuple[Result, Path, dict[str, Any]],
) -> None:
    result, folder, spec = whole
    more = {**spec, "factor": 3, "evaluate": None}
    ctx = LocalContext(folder, Spec.model_validate(more))
    again = run(folder, more, ctx)
    # The early training, the generator and the first copies are there; all are looked at again.
    assert (again.parts, again.restored) == (5, 3)
    assert again.plan.new_images == 2 * result.plan.new_images
    # The augmented set is a data set of rank-distilled-dataset, and of this job.
    path = str(folder / "artifacts/augmented.npz")
    real = datasets.load(
        Dataset.model_validate({"name": "custom", "files": [path]}), LocalContext(folder)
    )
    assert len(real.train.labels) == again.plan.set_size


def parts(folder: Path) -> tuple[GeneratorPart, ImagesPart]:
    dataset = digits(folder)
    generator = GeneratorPart.model_validate(
        {**TRAIN, "steps": 40, "dataset": dataset.model_dump(), "seed": 0, "device": "cpu"}
    )
    made = train_generator(generator, LocalContext(folder / "generator", generator))
    images = ImagesPart.model_validate(
        {
            "dataset": dataset.model_dump(),
            "generator": {**TRAIN, "steps": 40, "strength": [0.3, 0.7]},
            "weights": str(folder / "generator" / made.file),
            "class_names": None,
            "wanted": [(row, copy) for copy in (1, 2) for row in range(0, 140, 2)],
            "seed": 0,
            "device": "cpu",
        }
    )
    return generator, images


class _StoppedError(Exception):
    pass


def test_images_do_not_depend_on_shards_and_come_back_after_a_kill(tmp_path: Path) -> None:
    _, spec = parts(tmp_path)
    straight = make_images(spec, LocalContext(tmp_path / "straight", spec))
    assert straight.made == 140
    calls = 0

    def stop(phase: str, current: int, *_: object) -> None:
        nonlocal calls
        calls += phase == "making images"
        if phase == "making images" and current == 64:
            raise _StoppedError

    with pytest.raises(_StoppedError):
        make_images(spec, LocalContext(tmp_path / "killed", spec, stop))
    resumed = make_images(spec, LocalContext(tmp_path / "killed", spec))
    zips = [tmp_path / name / "artifacts/images.zip" for name in ("straight", "killed")]
    assert zips[0].read_bytes() == zips[1].read_bytes()
    assert resumed.made == 140
    some = spec.model_copy(update={"wanted": [(2, 2), (8, 1)]})
    make_images(some, LocalContext(tmp_path / "some", some))
    ctx = LocalContext(tmp_path)
    one, other = (
        read_images([str(tmp_path / name / "artifacts/images.zip")], some.wanted, (1, 8, 8), ctx)  # type: ignore[list-item]
        for name in ("straight", "some")
    )
    np.testing.assert_allclose(one, other, atol=1 / 255)


def test_a_killed_generator_ends_with_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import methods.plan_augmentation.making.generator as module

    monkeypatch.setattr(module, "_KEEP_EVERY", 0.0)
    spec = GeneratorPart.model_validate(
        {
            **TRAIN,
            "steps": 12,
            "dataset": digits(tmp_path).model_dump(),
            "seed": 0,
            "device": "cpu",
        }
    )

    def stop(phase: str, current: int, *_: object) -> None:
        if phase == "training the generator" and current == 7:
            raise _StoppedError

    train_generator(spec, LocalContext(tmp_path / "straight", spec))
    with pytest.raises(_StoppedError):
        train_generator(spec, LocalContext(tmp_path / "killed", spec, stop))
    train_generator(spec, LocalContext(tmp_path / "killed", spec))
    name = "artifacts/generator.safetensors"
    assert (tmp_path / "straight" / name).read_bytes() == (tmp_path / "killed" / name).read_bytes()


def test_more_strength_is_farther_away(whole: tuple[Result, Path, dict[str, Any]]) -> None:
    result, folder, _ = whole
    dataset = digits(folder)
    real = datasets.load(dataset, LocalContext(folder))
    shown = real.shown(real.train.images.numpy())
    away = []
    for strength in (0.2, 0.5, 0.8):
        spec = ImagesPart.model_validate(
            {
                "dataset": dataset.model_dump(),
                "generator": {**TRAIN, "strength": [strength]},
                "weights": str(folder / "artifacts/generator.safetensors"),
                "class_names": None,
                "wanted": [(row, 1) for row in range(50)],
                "seed": 0,
                "device": "cpu",
            }
        )
        out = folder / f"s{strength}"
        make_images(spec, LocalContext(out, spec))
        new = read_images(
            [str(out / "artifacts/images.zip")],  # type: ignore[list-item]
            spec.wanted,
            (1, 8, 8),
            LocalContext(folder),
        )
        away.append(float(np.sqrt(((new - shown[:50]) ** 2).mean())))
    assert away[0] < away[1] < away[2]
    assert result.generated is not None


@pytest.mark.timeout(300)
def test_a_pipeline_of_diffusers(tmp_path: Path) -> None:
    """A tiny Stable Diffusion through the real pipeline: repeatable, whatever is made beside."""
    models = Models(
        {"sd": ModelDeclaration(path=str(tiny_diffusion.save(tmp_path / "sd")))}, any_path=True
    )
    generator = {
        "kind": "pipeline",
        "model": "sd",
        "num_inference_steps": 20,
        "strength": [0.5, 0.6],
        "size": 32,
    }
    spec = {
        "dataset": digits(tmp_path, 60).model_dump(),
        "mode": "generate",
        "factor": 3,
        "max_new_images": 8,
        "generator": generator,
        "early": {"epochs": 2, "of": 4},
        "class_names": [
            "zero",
            "one",
            "two",
            "three",
            "four",
            "five",
            "six",
            "seven",
            "eight",
            "nine",
        ],
    }
    ctx = LocalContext(tmp_path / "one", models=models)
    result = run(tmp_path / "one", spec, ctx)
    assert result.generated is not None
    assert result.generated.images == 8
    assert result.verdict == "not evaluated"
    assert any("was not put to the test" in text for text in result.warnings)
    again = run(tmp_path / "two", spec, LocalContext(tmp_path / "two", models=models))
    first, second = (
        sorted((tmp_path / name / "artifacts").glob("images-*.zip")) for name in ("one", "two")
    )
    assert [one.read_bytes() for one in first] == [one.read_bytes() for one in second]
    assert again.plan == result.plan.model_copy(update={"generation": again.plan.generation})
    line = zipfile.ZipFile(first[0]).read("manifest.jsonl").decode().splitlines()[0]
    assert json.loads(line)["generator"] == "sd"
    with pytest.raises(JobError, match="make poor prompts"):
        run(
            tmp_path / "three",
            {**spec, "class_names": None},
            LocalContext(tmp_path / "three", models=models),
        )
    with pytest.raises(JobError, match="class_names has 2 names"):
        run(
            tmp_path / "four",
            {**spec, "class_names": ["a", "b"]},
            LocalContext(tmp_path / "four", models=models),
        )


def outputs(folder: Path, **changes: Any) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), 30)
    logits = rng.normal(size=(90, 3)) + 4 * np.eye(3)[labels] * (rng.random((90, 1)) < 0.7)
    arrays = {"logits": logits, "labels": labels, **changes}
    np.savez(folder / "outputs.npz", **arrays)
    return {"input": str(folder / "outputs.npz")}


def test_outputs_brought_along(tmp_path: Path) -> None:
    ids = np.array([f"row-{k}" for k in range(90)])
    given = {**outputs(tmp_path, ids=ids), "ids": "ids", "epoch": 8}
    result = run(tmp_path / "out", {"outputs": given, "mode": "upsample"})
    assert result.plan.epoch == 8
    assert result.plan.factor == 2
    assert result.early == []
    assert result.verdict == "not evaluated"
    text = (tmp_path / "out/artifacts/plan.csv").read_text()
    assert "row-89" in text
    equal = run(tmp_path / "equal", {"outputs": given, "class_balance": "equal"})
    sizes = [one.new_images for one in equal.plan.per_class]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"logits": np.zeros(90)}, "not \\(rows, classes\\)"),
        ({"labels": np.zeros(80)}, "logits have 90 rows"),
        ({"labels": np.full(90, 3)}, "no class from 0 to 2 at rows \\[0, 1"),
        ({"labels": np.full(90, 0.5)}, "no class from 0 to 2"),
        ({"labels": np.array(["cat"] * 90)}, "labels are no numbers"),
        ({"logits": np.full((90, 3), np.nan)}, "not finite at rows \\[0, 1"),
    ],
)
def test_outputs_that_are_none(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(JobError, match=message) as caught:
        run(tmp_path / "out", {"outputs": outputs(tmp_path, **changes)})
    assert caught.value.code == "input_invalid"


def test_outputs_that_cannot_be_split(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="No class has two different outputs") as caught:
        run(tmp_path / "out", {"outputs": outputs(tmp_path, logits=np.ones((90, 3)))})
    assert caught.value.code == "numerical_failure"
    twice = {**outputs(tmp_path, ids=np.array(["a"] * 90)), "ids": "ids"}
    with pytest.raises(JobError, match="'a' occurs twice"):
        run(tmp_path / "out", {"outputs": twice})
    few = {"outputs": outputs(tmp_path), "class_balance": "equal", "max_new_images": 2}
    with pytest.raises(JobError, match="3 classes have slow rows"):
        run(tmp_path / "out", few)


def test_nothing_to_make_images_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Digits that are all learned have no misclassified row; images may all be one colour."""
    spec = {
        "dataset": digits(tmp_path, 60).model_dump(),
        "mode": "generate",
        "factor": 2,
        "generator": {**TRAIN, "steps": 3},
        "early": {"epochs": 60, "of": 60, "batch_size": 16, "augment": "none"},
        "rule": "misclassified",
    }
    with pytest.raises(JobError, match="No row is slow by the rule misclassified") as caught:
        run(tmp_path / "out", spec)
    assert caught.value.code == "numerical_failure"
    monkeypatch.setattr(images_module, "_usable", lambda found: np.zeros(len(found), dtype=bool))
    early = {"epochs": 2, "of": 4}
    with pytest.raises(JobError, match="images came out as one colour"):
        run(tmp_path / "grey", {**spec, "rule": "cluster", "early": early})


PIPELINE = {"kind": "pipeline", "model": "sd"}


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({}, "exactly one of dataset and outputs"),
        ({"dataset": {}, "outputs": {"input": "a"}}, "exactly one"),
        ({"outputs": {"input": "a"}, "mode": "generate"}, "need the data set"),
        ({"outputs": {"input": "a"}, "evaluate": {}}, "need the data set"),
        ({"dataset": {}, "mode": "generate"}, "needs a generator"),
        ({"dataset": {}, "mode": "upsample", "factor": 3}, "allow_large_factor"),
        ({"dataset": {}, "evaluate": {}}, "a plan alone is not evaluated"),
        ({"dataset": {}, "generator": {**PIPELINE, "prompt": "a photo"}}, "needs {class}"),
        (
            {"dataset": {}, "generator": {"kind": "train", "strength": [0.04]}},
            "strength 0.04 of 20 steps is none at all",
        ),
        ({"dataset": {}, "generator": {"kind": "train", "strength": [1.5]}}, "less than or equal"),
        ({"dataset": {}, "mode": "upsample", "evaluate": {"arms": ["spread"]}}, "need plain"),
        ({"dataset": {}, "exclude_suspected_noise": True}, "needs the plain training"),
        ({"dataset": {}, "early": {"model": "ConvNet-9"}}, "needs a depth"),
    ],
)
def test_specs_that_say_nothing(spec: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Spec.model_validate(spec)


def test_shards_and_folders() -> None:
    wanted = [(row, copy) for copy in (1, 2) for row in (0, 5, 70)]
    assert shards(wanted, 64) == [[(0, 1), (5, 1)], [(70, 1)], [(0, 2), (5, 2)], [(70, 2)]]
    assert folder_of("../a b/c") == "_a b_c"
    assert folder_of("..") == "_"
    buffer = io.BytesIO()
    Image.new("L", (2, 2)).save(buffer, "PNG")
    assert buffer.getvalue()
