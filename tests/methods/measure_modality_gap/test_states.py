"""States of real models of several families: which tokens are image, which text."""

from __future__ import annotations

import base64
import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from methods.errors import JobError
from methods.inference.image_text_model import image_text_model
from methods.local import LocalContext
from methods.measure_modality_gap.reading.pairs import made_image
from methods.measure_modality_gap.result import Result
from methods.measure_modality_gap.spec import Spec
from methods.registry import load_registry
from tests.toys import tiny_llava, tiny_vlms

WORDS = [
    "a",
    "red",
    "green",
    "blue",
    "cat",
    "dog",
    "sits",
    "runs",
    "on",
    "the",
    "mat",
    "user:",
    "answer:",
    "0",
    "Z",
]
#: Image tokens of a pair, and tokens of the template after the image.
FAMILIES: dict[str, tuple[Callable[..., Path], int, int]] = {
    "llava": (tiny_llava.save, tiny_llava.IMAGE_TOKENS, 0),
    "qwen2_vl": (tiny_vlms.save_qwen2_vl, 4, 2),
    "paligemma": (tiny_vlms.save_paligemma, 16, 2),
    "idefics3": (tiny_vlms.save_idefics3, 20, 3),
}


def uri(seed: int) -> str:
    return "data:image/png;base64," + base64.b64encode(tiny_llava.png(seed)).decode()


def pairs(count: int = 7) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    return [
        {"text": " ".join(rng.choice(WORDS[:11], size=rng.integers(3, 9))), "image": uri(seed)}
        for seed in range(count)
    ]


def words_of(rows: list[dict[str, Any]]) -> int:
    return sum(len(row["text"].split()) for row in rows)


def run(folder: Path, model: Path | str, out: str = "out", **spec: Any) -> Result:
    asked = {"subjects": [{"name": "m", "model": str(model)}], "permutations": 5, **spec}
    parsed = Spec.model_validate(asked)
    ctx = LocalContext(folder / out, parsed, inputs=folder)
    found = load_registry()["measure-modality-gap"].load_runner()(parsed, ctx)
    assert isinstance(found, Result)
    return found


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llava.save(tmp_path_factory.mktemp("models") / "llava", WORDS)


@pytest.mark.parametrize("family", FAMILIES)
def test_tokens_of_each_family(family: str, tmp_path: Path) -> None:
    save, images, template = FAMILIES[family]
    folder = tmp_path / "model"
    folder.mkdir()
    save(folder, WORDS)
    rows = pairs()
    found: dict[tuple[str, int], Any] = {}
    for text in ("user", "after_image", "separate_pass"):
        for batch in (64, 4_000):
            result = run(
                tmp_path,
                folder,
                f"{text}{batch}",
                pairs={"rows": rows},
                text=text,
                batch_tokens=batch,
            )
            found[text, batch] = result.subjects[0]
            layers = result.subjects[0].layers
            assert [one.layer for one in layers] == [0, 1, 2]
            assert {one.r for one in layers} == {images * len(rows)}
            more = template * len(rows) if text == "after_image" else 0
            assert {one.s for one in layers} == {words_of(rows) + more}
    for text in ("user", "after_image", "separate_pass"):
        one, other = (found[text, batch].layers for batch in (64, 4_000))
        for first, second in zip(one, other, strict=True):
            # A batch must not change the states.
            assert first.fid == pytest.approx(second.fid, rel=1e-5)
    user, alone = (found[text, 64].layers for text in ("user", "separate_pass"))
    assert user[0].fid == pytest.approx(alone[0].fid, rel=1e-6)
    # Later states of a text have seen the image.
    assert user[2].fid != pytest.approx(alone[2].fid, rel=1e-3)


def test_the_input_is_the_projectors_output(llava: Path, tmp_path: Path) -> None:
    """Layer 0 of image tokens is what the language model gets, the last is after its norm."""
    model = image_text_model(LocalContext(tmp_path).models, str(llava))
    picture = Image.open(io.BytesIO(tiny_llava.png(0))).convert("RGB")
    inputs = model.encode(["a cat"], [picture])
    states = model.states(inputs)
    with torch.inference_mode():
        out = model.model(**inputs)
    places = inputs["input_ids"][0] == model.image_token
    assert torch.equal(states[0][0, places], out.image_hidden_states.reshape(-1, model.width))
    torch.testing.assert_close(model.model.lm_head(states[-1].clone()).detach(), out.logits)
    assert len(states) == model.layers + 1


def test_layers_that_are_asked_for(llava: Path, tmp_path: Path) -> None:
    rows = pairs()
    every = run(tmp_path, llava, pairs={"rows": rows}).subjects[0]
    some = run(tmp_path, llava, "some", pairs={"rows": rows}, layers=[2, 0])
    assert [one.layer for one in some.subjects[0].layers] == [0, 2]
    assert some.subjects[0].layers[1] == every.layers[2]
    assert every.mir_exact.full
    assert not some.subjects[0].mir_exact.full
    assert any("of the layers 2 only" in text for text in some.warnings)
    first = run(tmp_path, llava, "first", pairs={"rows": rows}, layers=[0, 1])
    assert not first.subjects[0].mir_exact.full
    with pytest.raises(JobError, match="has 2 layers; there is no layer 7"):
        run(tmp_path, llava, "none", pairs={"rows": rows}, layers=[7])


def test_images_in_an_archive_and_images_that_are_made(llava: Path, tmp_path: Path) -> None:
    rows = pairs()
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        for place in range(len(rows)):
            archive.writestr(f"train/{place}.png", tiny_llava.png(place))
    named = [
        {"caption": row["text"], "file": f"train/{place}.png"} for place, row in enumerate(rows)
    ]
    inside = run(tmp_path, llava, pairs={"rows": rows})
    outside = run(
        tmp_path,
        llava,
        "archive",
        pairs={
            "rows": named,
            "images": "images.zip",
            "text_field": "caption",
            "image_field": "file",
        },
    )
    assert outside.subjects == inside.subjects
    texts = [{"text": row["text"]} for row in rows]
    blank = run(tmp_path, llava, "blank", pairs={"rows": texts, "synthetic": "blank"})
    noise = run(tmp_path, llava, "noise", pairs={"rows": texts, "synthetic": "noise"})
    spread = [one.subjects[0].layers[0].tr_v for one in (blank, noise)]
    assert spread[0] != pytest.approx(spread[1], rel=0.01)
    assert np.array_equal(made_image("noise", 3, 0), made_image("noise", 3, 0))
    assert not np.array_equal(made_image("noise", 3, 0), made_image("noise", 4, 0))


def test_bad_pairs_are_named_or_left_out_and_counted(llava: Path, tmp_path: Path) -> None:
    rows = pairs()
    bad = [
        *rows,
        {"text": "a cat", "image": "missing.png"},
        {"text": " ", "image": uri(1)},
        {"text": "a dog"},
        {"text": "a dog", "image": "data:image/png;base64,AAAA"},
        "text",
    ]
    with pytest.raises(JobError) as caught:
        run(tmp_path, llava, pairs={"rows": [row for row in bad if isinstance(row, dict)]})
    assert caught.value.code == "input_invalid"
    assert caught.value.details["bad_rows"] == 4
    assert "row 7: image is a path; give the archive" in caught.value.message
    found = run(
        tmp_path,
        llava,
        "skip",
        pairs={"rows": [row for row in bad if isinstance(row, dict)]},
        on_bad_rows="skip",
    )
    assert found.subjects == run(tmp_path, llava, "good", pairs={"rows": rows}).subjects
    assert any("4 rows of pairs left out; the first is row 7" in text for text in found.warnings)
    some = run(tmp_path, llava, "some", pairs={"rows": rows}, n_pairs=3)
    assert some.subjects[0].pairs == 3


def test_a_model_without_image_tokens_is_refused(tmp_path: Path) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=20,
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
        )
    )
    model.save_pretrained(tmp_path / "llama")
    with pytest.raises(JobError) as caught:
        run(tmp_path, tmp_path / "llama", pairs={"rows": pairs()})
    assert caught.value.code in ("model_unavailable", "model_rejected_request")


def test_states_that_are_not_finite_are_named(llava: Path, tmp_path: Path) -> None:
    broken = tiny_llava.save(tmp_path / "broken", WORDS)
    from safetensors.torch import load_file, save_file

    weights = load_file(broken / "model.safetensors")
    name = next(key for key in weights if "layers.1.mlp.down_proj" in key and "vision" not in key)
    weights[name][0, 0] = float("nan")
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(JobError, match="States of layer 2 are not finite at row 0"):
        run(tmp_path, broken, pairs={"rows": pairs()})


def test_checkpoints_side_by_side(llava: Path, tmp_path: Path) -> None:
    other = tiny_llava.save(tmp_path / "other", WORDS, seed=1)
    parsed = Spec.model_validate(
        {
            "subjects": [
                {"name": "step 0", "model": str(llava)},
                {"name": "step 100", "model": str(other)},
            ],
            "pairs": {"rows": pairs()},
            "permutations": 5,
        }
    )
    ctx = LocalContext(tmp_path / "out", parsed, inputs=tmp_path)
    found = load_registry()["measure-modality-gap"].load_runner()(parsed, ctx)
    assert [one.name for one in found.subjects] == ["step 0", "step 100"]
    assert found.subjects[0].mir_exact != found.subjects[1].mir_exact
    assert {"torch", "transformers"} <= set(found.provenance.versions)
