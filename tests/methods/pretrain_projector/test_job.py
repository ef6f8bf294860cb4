"""pretrain-projector: what is trained, what is not, what a restart keeps, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file

from methods.errors import JobError
from methods.inference.image_text_model import image_text_model
from methods.inference.projector import projector_of
from methods.local import LocalContext
from methods.measure_modality_gap.result import Result as GapResult
from methods.measure_modality_gap.spec import Spec as GapSpec
from methods.pretrain_projector.child_jobs import RunMade, RunPart
from methods.pretrain_projector.reading import is_held_out
from methods.pretrain_projector.result import Result
from methods.pretrain_projector.settings import Recipe
from methods.pretrain_projector.spec import Spec
from methods.pretrain_projector.training.frozen import Frozen
from methods.pretrain_projector.training.run import run as run_part
from methods.registry import load_registry
from tests.methods.pretrain_projector import worlds
from tests.toys import howto, scenes, tiny_llava, tiny_vlms


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return worlds.untrained(tmp_path_factory.mktemp("models") / "llava")


@pytest.fixture(scope="module")
def whole(model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Path]:
    folder = tmp_path_factory.mktemp("job")
    safety = {
        "harmful": worlds.prompts(howto.HARMFUL, 1),
        "benign": worlds.prompts(howto.BENIGN[:4], 1),
        "max_tokens": 8,
    }
    penalty = {"weight": [0.5, 2.0]}
    return worlds.run(folder, worlds.small(model, penalty=penalty, safety=safety)), folder


def steps_of(folder: Path, name: str) -> list[dict[str, Any]]:
    lines = (folder / "artifacts/training.jsonl").read_text().splitlines()
    return [one for line in lines if (one := json.loads(line))["run"] == name]


def test_runs_are_paired(whole: tuple[Result, Path]) -> None:
    """All runs are one until alpha is fixed: same first tensors, same order of captions."""
    result, folder = whole
    assert [one.weight for one in result.runs] == [0.0, 0.5, 2.0]
    assert result.captions == 80
    first, half, twice = (steps_of(folder, one.name) for one in result.runs)
    assert [one["loss"] for one in first[:20]] == [one["loss"] for one in half[:20]]
    assert [one["loss"] for one in half[:20]] == [one["loss"] for one in twice[:20]]
    assert half[-1]["loss"] != twice[-1]["loss"]
    alphas = {one["alpha"] for one in half}
    assert alphas == {None, result.runs[1].alpha}
    assert result.runs[1].alpha == result.runs[2].alpha
    wanted = np.mean([one["loss"] for one in half[:20]]) / np.mean(
        [one["penalty"] for one in half[:20]]
    )
    assert result.runs[1].alpha == pytest.approx(wanted, rel=1e-12)
    assert result.runs[2].input.fid < result.runs[0].input.fid
    assert [one.weight for one in result.comparison] == [0.5, 2.0]
    for compared, run in zip(result.comparison, result.runs[1:], strict=True):
        assert compared.fid_fall == pytest.approx(result.runs[0].input.fid / run.input.fid)
        assert {one.condition for one in compared.gains} == {
            "text-only",
            "blank",
            "noise",
            "image",
        }
        alone = next(one for one in compared.gains if one.condition == "text-only")
        # Without an image no projector is in play.
        assert alone.test.only_before == alone.test.only_after == 0


def test_only_the_projector_changes(whole: tuple[Result, Path], model: Path) -> None:
    result, folder = whole
    saved = load_file(str(folder / "artifacts" / result.runs[2].projector.name))
    ctx = LocalContext(folder)
    before = image_text_model(ctx.models, str(model)).model.state_dict()
    after = image_text_model(ctx.models, str(folder / result.runs[2].model.id)).model.state_dict()
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == saved.keys()
    assert all(torch.equal(after[name], value) for name, value in saved.items())


def test_the_artifact_is_a_model_of_other_jobs(whole: tuple[Result, Path], model: Path) -> None:
    """measure-modality-gap and select-subset take it by its name."""
    result, folder = whole
    from methods.select_subset.proxy.model.proxy import load_proxy

    made = str(folder / result.runs[1].model.id)
    rows = [{"text": one["text"], "image": one["image"]} for one in scenes.captions(8)]
    subjects = [{"name": "before", "model": str(model)}, {"name": "after", "model": made}]
    spec = GapSpec.model_validate(
        {"subjects": subjects, "pairs": {"rows": rows}, "permutations": 0, "bootstrap": 0}
    )
    runner = load_registry()["measure-modality-gap"].load_runner()
    found = runner(spec, LocalContext(folder / "gap", spec))
    assert isinstance(found, GapResult)
    first, second = found.subjects
    assert first.layers[0].norm_t == second.layers[0].norm_t
    assert first.layers[0].norm_v != second.layers[0].norm_v
    proxy = load_proxy(made, LocalContext(folder).models, 64, 0)
    own = load_file(str(folder / "artifacts" / result.runs[1].projector.name))
    state = proxy.model.state_dict()
    assert all(torch.equal(state[name], value) for name, value in own.items())


def test_the_whole_model_on_request(model: Path, tmp_path: Path) -> None:
    result = worlds.run(
        tmp_path / "one", worlds.small(model, save="model", penalty=None, num_train_epochs=1)
    )
    assert [one.weight for one in result.runs] == [0.0]
    made = tmp_path / "one" / result.runs[0].model.id
    ctx = LocalContext(tmp_path)
    assert image_text_model(ctx.models, str(made)).layers == 2
    # What a job made is where the next one may start; of it there is no name for a projector.
    again = worlds.run(
        tmp_path / "two",
        worlds.small(made, start="given", penalty=None, num_train_epochs=1, learning_rate=1e-9),
    )
    first, second = (
        load_file(str(tmp_path / name / "artifacts" / one.runs[0].projector.name))
        for name, one in (("one", result), ("two", again))
    )
    for name, value in first.items():
        assert torch.allclose(value, second[name], atol=1e-6)


def part(model: Path, **changes: Any) -> RunPart:
    spec = Spec.model_validate(worlds.small(model))
    recipe = {name: getattr(spec, name) for name in Recipe.model_fields}
    base = {
        **recipe,
        "model": spec.model,
        "captions": spec.captions,
        "rows": list(range(80)),
        "features": None,
        "held_out": 0.2,
        "split_seed": 0,
        "penalty": {"kind": "pairwise_l2", "weight": 1.0, "alpha": None, "warmup_steps": None},
        "measure": spec.measure,
        "whole": False,
        "seed": 0,
        "device": "cpu",
    }
    return RunPart.model_validate({**base, **changes})


class _StoppedError(Exception):
    pass


@pytest.mark.parametrize("at", [3, 21, 22])
def test_a_killed_training_ends_as_any_other(model: Path, tmp_path: Path, at: int) -> None:
    """Before alpha is fixed, at once after, and later: to the last bit, alpha too."""

    def stop(phase: str, current: int, *_: object) -> None:
        if phase == "training" and current == at:
            raise _StoppedError

    spec = part(model)
    straight = run_part(spec, LocalContext(tmp_path / "straight", spec))
    with pytest.raises(_StoppedError):
        run_part(spec, LocalContext(tmp_path / "killed", spec, stop))
    resumed = run_part(spec, LocalContext(tmp_path / "killed", spec))
    assert resumed.alpha == straight.alpha
    for name in ("training.jsonl", "projector.safetensors"):
        one, other = (tmp_path / folder / "artifacts" / name for folder in ("straight", "killed"))
        assert one.read_bytes() == other.read_bytes()
    assert resumed.model_dump(exclude={"model"}) == straight.model_dump(exclude={"model"})


def test_stored_features_and_computed_ones_are_one(
    whole: tuple[Result, Path], model: Path, tmp_path: Path
) -> None:
    """A training that reads images itself ends as one that is given their features."""
    result, folder = whole
    spec = part(model, penalty=None)
    computed = run_part(spec, LocalContext(tmp_path, spec))
    found = [
        RunMade.model_validate(json.loads(path.read_text()))
        for path in folder.glob("children/*/result.json")
        if "steps" in json.loads(path.read_text())
    ]
    stored = next(one for one in found if one.alpha is None)
    assert stored.losses == pytest.approx(computed.losses, rel=1e-4)
    assert result.runs[0].alpha is None


def test_gradients_reach_the_projector_alone(model: Path, tmp_path: Path) -> None:
    spec = part(model, penalty=None, num_train_epochs=1)
    ctx = LocalContext(tmp_path, spec)
    own = image_text_model(ctx.models, str(model))
    before = {name: value.clone() for name, value in own.model.state_dict().items()}
    run_part(spec, ctx)
    # Training changes a copy of the projector: others have the model too.
    assert image_text_model(ctx.models, str(model)).model is own.model
    assert all(torch.equal(before[name], one) for name, one in own.model.state_dict().items())
    frozen = Frozen.of(own, Recipe())
    path, _ = projector_of(own.model, "m")
    names = {name for name, one in own.model.named_parameters() if one.requires_grad}
    assert not names
    assert path == frozen.path
    assert len(frozen.places) == tiny_llava.IMAGE_TOKENS
    assert int(frozen.prompt[0]) == own.processor.tokenizer.bos_token_id


def test_template_of_the_model(model: Path, tmp_path: Path) -> None:
    spec = part(model, template="model", instruction="a red circle", penalty=None)
    made = run_part(spec, LocalContext(tmp_path, spec))
    assert all(np.isfinite(made.losses))


def test_equal_captions_are_on_one_side() -> None:
    held = [is_held_out(f"caption {k}", 0.3, 0) for k in range(2_000)]
    assert 0.26 < np.mean(held) < 0.34
    assert held[7] == is_held_out("caption 7", 0.3, 0)
    other = [is_held_out(f"caption {k}", 0.3, 1) for k in range(2_000)]
    assert held != other


@pytest.mark.parametrize(("count", "rows"), [(60, 8), (5_000, 48), (558_000, 256), (4, 4)], ids=str)
def test_a_step_leaves_an_epoch_enough_of_them(count: int, rows: int) -> None:
    assert Recipe(per_device_train_batch_size=8).rows_a_step(count) == rows


def test_what_cannot_be_trained(model: Path, tmp_path: Path) -> None:
    for name, save in (("qwen", tiny_vlms.save_qwen2_vl),):
        folder = tmp_path / name
        folder.mkdir()
        save(folder, worlds.WORDS)
        with pytest.raises(JobError, match="no module called multi_modal_projector") as caught:
            worlds.run(tmp_path / f"{name}-out", worlds.small(folder))
        assert caught.value.code == "model_rejected_request"
        assert "visual" in caught.value.message
    short = worlds.small(model, num_train_epochs=1)
    with pytest.raises(JobError, match="alpha needs a warm-up of 20") as caught:
        worlds.run(tmp_path / "short", short)
    assert caught.value.code == "input_invalid"
    loud = _with_a_loud_tower(model, tmp_path / "loud")
    with pytest.raises(JobError, match="rows 0 to 31 are not finite in half precision") as caught:
        worlds.run(tmp_path / "loud-out", worlds.small(loud))
    assert caught.value.code == "numerical_failure"


def _with_a_loud_tower(model: Path, folder: Path) -> Path:
    shutil.copytree(model, folder)
    state = load_file(str(folder / "model.safetensors"))
    for name, value in state.items():
        if "vision_tower" in name and "fc2" in name:
            value *= 1e8
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_bad_rows(model: Path, tmp_path: Path) -> None:
    rows = scenes.captions(60)
    rows[3] = {"text": "", "image": rows[3]["image"]}
    rows[9] = {"text": "a", "image": "data:image/png;base64,AAAA"}
    spec = worlds.small(model, captions={"rows": rows}, penalty=None, num_train_epochs=1)
    with pytest.raises(JobError) as caught:
        worlds.run(tmp_path / "refused", spec)
    assert caught.value.code == "input_invalid"
    assert [one["row"] for one in caught.value.details["rows"]] == [3, 9]
    result = worlds.run(tmp_path / "skipped", {**spec, "on_bad_rows": "skip"})
    assert result.captions == 58
    assert result.skipped == 2
    assert any("2 rows of captions left out" in text for text in result.warnings)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"penalty": None, "baseline": False}, "nothing to train"),
        ({"penalty": {"weight": [1, 1]}}, "a weight occurs twice"),
        ({"penalty": {"warmup_steps": 5}}, "greater than or equal to 20"),
        ({"captions": {"rows": [{"text": "a"}], "synthetic": "blank"}}, "not synthetic"),
        ({"penalty": {"layer": 3}}, "Extra inputs"),
    ],
)
def test_a_spec_that_says_nothing(model: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Spec.model_validate(worlds.small(model, **changes))
