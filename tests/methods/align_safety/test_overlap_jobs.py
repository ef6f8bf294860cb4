"""measure-update-overlap and project-adapter on real files."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaForCausalLM

from methods.align_safety.overlap.directions import leading
from methods.align_safety.overlap.measures import Full, measure
from methods.errors import JobError
from tests.methods.align_safety import adapters
from tests.methods.align_safety.adapters import HOWTO, adapter, files, run


def overlap(folder: Path, update: dict[str, Any], **more: Any) -> Any:
    spec = {"base": {"model": "howto"}, "update": update, "k": 0.25, **more}
    return run(folder, "measure-update-overlap", spec)


def test_an_adapter_is_measured_matrix_by_matrix(tmp_path: Path) -> None:
    source = adapter(tmp_path / "adapter")
    result = overlap(tmp_path, {"adapter": files(tmp_path, source)})
    assert [one.layer for one in result.matrices] == [0, 0, 1, 1, 2, 2]
    weights = load_file(HOWTO / "model.safetensors")
    factors = load_file(source / "adapter_model.safetensors")
    for row in result.matrices:
        a = factors[f"base_model.model.{row.name}.lora_A.weight"]
        b = factors[f"base_model.model.{row.name}.lora_B.weight"]
        weight = weights[f"{row.name}.weight"]
        wanted = measure(weight, Full(2.0 * b @ a), leading(weight, row.k))
        assert row.k == 24
        assert row.energy.column == pytest.approx(wanted.energy["column"], abs=1e-6)
        assert row.lift.row == pytest.approx(wanted.lift["row"], rel=1e-5)
        assert row.stable_rank == pytest.approx(wanted.stable_rank, rel=1e-4)
    table = list(csv.DictReader((tmp_path / "artifacts/overlap.csv").open()))
    assert len(table) == 6
    assert float(table[0]["lift_column"]) == result.matrices[0].lift.column
    assert {one.kind: one.n for one in result.by_kind} == {"up_proj": 3, "q_proj": 3}
    assert len(result.by_layer) == 6


def test_the_same_update_as_tuned_weights(tmp_path: Path) -> None:
    source = adapter(tmp_path / "adapter")
    tuned = adapters.merged(source)
    tuned.save_pretrained(tmp_path / "tuned")
    shutil.copyfile(tmp_path / "tuned/model.safetensors", tmp_path / "tuned.safetensors")
    by_factors = overlap(tmp_path / "a", {"adapter": files(tmp_path / "a", source)})
    whole = overlap(tmp_path, {"tuned": {"inputs": ["tuned.safetensors"]}})
    changed = {one.name: one for one in whole.matrices if "zero" not in one.flags}
    assert set(changed) == {one.name for one in by_factors.matrices}
    for one in by_factors.matrices:
        same = changed[one.name]
        assert same.energy.column == pytest.approx(one.energy.column, rel=1e-4)
        assert same.weighted_full.both == pytest.approx(one.weighted_full.both, rel=1e-3)
        assert same.rel_norm == pytest.approx(one.rel_norm, rel=1e-4)
        assert same.unchanged_share is not None
        assert same.unchanged_share < 0.01
    assert len(whole.matrices) == 21
    assert any("did not change" in text for text in whole.warnings)
    assert any("embed_tokens" in name for name in whole.skipped)
    only = overlap(tmp_path / "b", {"adapter": files(tmp_path / "b", source)}, modules=["*.1.*"])
    assert [one.layer for one in only.matrices] == [1, 1]


def test_bfloat16_hides_small_updates_and_says_so(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    weight = 0.02 * torch.randn(256, 256, generator=generator)
    direction = torch.outer(
        torch.randn(256, generator=generator), torch.randn(256, generator=generator)
    )
    update = direction / direction.norm() * weight.norm()
    for share, limited, unchanged in ((1e-4, True, 0.95), (1e-2, False, 0.2)):
        folder = tmp_path / str(share)
        folder.mkdir()
        name = "model.layers.0.mlp.up_proj.weight"
        base = weight.bfloat16()
        save_file({name: base}, folder / "base.safetensors")
        tuned = (base.float() + share * update).bfloat16()
        save_file({name: tuned}, folder / "tuned.safetensors")
        spec = {
            "base": {"inputs": ["base.safetensors"]},
            "update": {"tuned": {"inputs": ["tuned.safetensors"]}},
        }
        result = run(folder, "measure-update-overlap", spec)
        [row] = result.matrices
        assert ("rounding_limited" in row.flags) is limited
        assert bool(result.warnings) is limited
        assert row.unchanged_share is not None
        assert row.unchanged_share > unchanged
        assert row.stable_rank is not None
        assert (row.stable_rank > 2) is limited, "the true one is 1"


def fault(folder: Path, spec: dict[str, Any], name: str = "measure-update-overlap") -> JobError:
    with pytest.raises(JobError) as error:
        run(folder, name, spec)
    assert error.value.code == "input_invalid"
    return error.value


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"bias": "all"}, "bias"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"trainable_token_indices": [1]}, "trainable_token_indices"),
        ({"alora_invocation_tokens": [1]}, "alora_invocation_tokens"),
        ({"peft_type": "IA3"}, "IA3"),
        ({"lora_alpha": None}, "lora_alpha"),
    ],
)
def test_what_is_no_plain_lora_is_refused(
    tmp_path: Path, fields: dict[str, Any], said: str
) -> None:
    given = files(tmp_path, adapter(tmp_path / "adapter"))
    adapters.edit(tmp_path, **fields)
    spec = {"base": {"model": "howto"}, "update": {"adapter": given}}
    assert said in fault(tmp_path, spec).message
    project = {"base": {"model": "howto"}, "adapter": given, "variants": [{"scale": 0.5}]}
    assert said in fault(tmp_path, project, "project-adapter").message


def test_a_pickle_and_other_models_are_refused(tmp_path: Path) -> None:
    given = files(tmp_path, adapter(tmp_path / "adapter"))
    torch.save({"a": torch.ones(2)}, tmp_path / "pickle.bin")
    spec = {"base": {"model": "howto"}, "update": {"adapter": {**given, "weights": "pickle.bin"}}}
    assert "safetensors" in fault(tmp_path, spec).message
    name = "model.layers.0.mlp.up_proj.weight"
    save_file({name: torch.ones(3, 4)}, tmp_path / "other.safetensors")
    spec = {"base": {"inputs": ["other.safetensors"]}, "update": {"adapter": given}}
    assert "up_proj" in fault(tmp_path, spec).message
    spec = {"base": {"model": "howto"}, "update": {"tuned": {"inputs": ["other.safetensors"]}}}
    found = fault(tmp_path, spec)
    assert "only in base" in found.message
    assert any("up_proj.weight is [256, 96]" in one for one in found.details["differences"])
    spec = {"base": {"model": "howto"}, "update": {"adapter": given}, "modules": ["nothing"]}
    assert "nothing" in fault(tmp_path, spec).message
    save_file({"model.layers.0.mlp.up_proj.qweight": torch.ones(3, 4)}, tmp_path / "q.safetensors")
    spec = {"base": {"inputs": ["q.safetensors"]}, "update": {"adapter": given}}
    assert "quantised" in fault(tmp_path, spec).message


def test_variants_load_in_plain_peft_and_are_what_they_say(tmp_path: Path) -> None:
    source = adapter(tmp_path / "adapter")
    variants = [{"side": "both", "k": 16}, {"scale": 0.5}, {"side": "column", "k": 0.9999}]
    spec = {
        "adapter": files(tmp_path, source),
        "base": {"model": "howto"},
        "variants": variants,
    }
    result = run(tmp_path, "project-adapter", spec)
    assert [one.label for one in result.variants] == [
        "project both k 16",
        "scale 0.5",
        "project column k 0.9999",
    ]
    assert result.warnings, "no matrix has more directions than its smaller side"
    projected, scaled, gone = result.variants
    assert scaled.kept_energy == pytest.approx(0.25)
    assert 0 < projected.kept_energy < 1
    assert projected.lift_after.column == pytest.approx(0, abs=1e-12)
    assert projected.lift_before.column is not None
    assert projected.lift_before.column > 0.5
    assert gone.kept_energy < 0.7
    weights = LlamaForCausalLM.from_pretrained(HOWTO).state_dict()
    deltas = []
    for place in range(2):
        folder = tmp_path / f"peft-{place}"
        folder.mkdir()
        for name in ("adapter_model.safetensors", "adapter_config.json"):
            saved = tmp_path / "artifacts" / f"variant-{place}.{name}"
            shutil.copyfile(saved, folder / name)
        config = json.loads((folder / "adapter_config.json").read_text())
        assert (config["r"], config["base_model_name_or_path"]) == (4, "howto")
        state = adapters.merged(folder).state_dict()
        deltas.append({n: state[n] - weights[n] for n in weights if "up_proj" in n})
    original = adapters.merged(source).state_dict()
    for name, delta in deltas[1].items():
        assert delta.numpy() == pytest.approx(
            0.5 * (original[name] - weights[name]).numpy(), abs=1e-6
        )
        found = leading(weights[name], 16)
        inside = (found.left.T @ deltas[0][name].double()).norm() / deltas[0][name].norm()
        assert float(inside) ** 2 < 1e-9


def test_an_adapter_that_a_job_made_and_one_of_rank_stabilised_scale(tmp_path: Path) -> None:
    source = adapter(tmp_path / "adapter", use_rslora=True)
    made = run(
        tmp_path / "made",
        "project-adapter",
        {
            "adapter": files(tmp_path / "made", source),
            "base": {"model": "howto"},
            "variants": [{"scale": 1.0}],
        },
    )
    model = made.variants[0].model
    assert model is not None
    result = overlap(tmp_path / "made", {"adapter": {"model": model.id}})
    again = overlap(tmp_path / "made", {"adapter": files(tmp_path / "made", source)})
    assert result.matrices == again.matrices
    assert result.matrices[0].fro == pytest.approx(
        float(_delta(source, result.matrices[0].name, 8 / np.sqrt(4)).norm()), rel=1e-5
    )


def _delta(source: Path, name: str, scale: float) -> torch.Tensor:
    factors = load_file(source / "adapter_model.safetensors")
    a = factors[f"base_model.model.{name}.lora_A.weight"]
    return scale * factors[f"base_model.model.{name}.lora_B.weight"] @ a


@pytest.mark.parametrize(
    ("variants", "said"),
    [
        ([{"scale": 2}], "amplifies"),
        ([{"scale": 0.5}, {"scale": 0.5}], "occurs twice"),
        ([{"side": "row"}], "either side and k, or scale"),
        ([{"side": "row", "k": 1.5}], "1"),
        ([{"scale": 0.5, "rescale": True}], "rescale"),
    ],
)
def test_wrong_variants(variants: list[dict[str, Any]], said: str) -> None:
    from methods.align_safety.overlap.spec import ProjectSpec

    given = {
        "adapter": {"weights": "file_1", "config": "file_2"},
        "base": {"model": "howto"},
        "variants": variants,
    }
    with pytest.raises(ValueError, match=said):
        ProjectSpec.model_validate(given)
