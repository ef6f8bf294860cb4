"""Proxies other than LLaVA: language models without images, and those of other families."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

from methods.errors import JobError
from methods.inference.image_text_model import load_processor
from methods.inference.model_registry import Models
from methods.local import LocalContext
from methods.select_subset.job import run
from methods.select_subset.proxy.model.forward_readings import read_batch
from methods.select_subset.proxy.model.gradients import AdapterGradients
from methods.select_subset.proxy.model.proxy import Proxy, load_proxy
from methods.select_subset.proxy.rows.conversations import UnusableRowError, turns_of
from methods.select_subset.proxy.rows.encoding import IGNORED, Batch, Encoded
from methods.select_subset.result import Result
from methods.select_subset.schema.lora import Lora
from methods.select_subset.spec import Spec
from tests.toys import tiny_llava as tiny
from tests.toys.tiny_models import tiny_llama
from tests.toys.tiny_vlms import (
    save_idefics3,
    save_paligemma,
    save_qwen2_5_vl,
    save_qwen2_vl,
)

WORDS = ["what", "is", "it", "a", "b", "c", "d", "e", "f", "g", "answer:"]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("llama"), hidden=64)


@pytest.fixture(scope="module")
def plain_llama(llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same without a chat template."""
    folder = tmp_path_factory.mktemp("plain")
    for file in llama.iterdir():
        if file.name != "chat_template.jinja":
            (folder / file.name).write_bytes(file.read_bytes())
    return folder


def loaded(path: Path, **more: Any) -> Proxy:
    return load_proxy(str(path), Models(any_path=True), 512, **more)


def encoded(proxy: Proxy, row: dict[str, Any], images: list[bytes] | None = None) -> Encoded:
    return proxy.encoder(turns_of(row, len(images or [])), images or [])


def batch_of(proxy: Proxy, rows: list[Encoded]) -> Batch:
    return Batch.of(rows, proxy.encoder.pad, CPU)


ALPACA = {"instruction": "Add.", "input": "one and two", "output": "three"}
LAYOUTS: list[tuple[dict[str, Any], str, str]] = [
    (ALPACA, "Add.\n\none and two\n", "three</s>"),
    ({"instruction": "Say ten.", "input": "", "output": "ten"}, "Say ten.\n", "ten</s>"),
    ({"prompt": "one two", "completion": " three"}, "one two\n", "three</s>"),
    ({"question": "one?", "answer": "two"}, "one?\n", "two</s>"),
    (
        {"prompt": [{"role": "user", "content": "one"}], "completion": "two"},
        "one\n",
        "two</s>",
    ),
    (
        {"conversations": [{"from": "human", "value": "one"}, {"from": "gpt", "value": "two"}]},
        "one\n",
        "two</s>",
    ),
    ({"text": "one two three"}, "", "one two three</s>"),
]


@pytest.mark.parametrize(("row", "asked", "answer"), LAYOUTS)
def test_layouts_and_what_is_learnt_of_them(
    plain_llama: Path, row: dict[str, Any], asked: str, answer: str
) -> None:
    proxy = loaded(plain_llama)
    shown = proxy.encoder.shown(encoded(proxy, row))
    assert "".join(text for text, learnt in shown if not learnt) == "<s>" + asked
    assert "".join(text for text, learnt in shown if learnt) == answer


def test_a_chat_template_says_where_answers_are(llama: Path) -> None:
    proxy = loaded(llama)
    turns = [
        {"role": "system", "content": "one"},
        {"role": "user", "content": "two"},
        {"role": "assistant", "content": "three"},
        {"role": "user", "content": "four"},
        {"role": "assistant", "content": "five"},
    ]
    shown = proxy.encoder.shown(encoded(proxy, {"messages": turns}))
    learnt = [text for text, is_learnt in shown if is_learnt]
    assert [text.strip() for text in learnt] == ["three", "five"]
    whole = "".join(text for text, _ in shown)
    assert whole.startswith("<s>system: one\nuser: two\nassistant: three\nuser: four\n")


def test_rows_that_a_text_model_cannot_take(plain_llama: Path) -> None:
    proxy = loaded(plain_llama)
    with pytest.raises(UnusableRowError, match="reads text only"):
        encoded(proxy, ALPACA, [tiny.png(0)])
    for row in ({"prompt": "a", "completion": ""}, {"title": "a"}, {"text": " "}):
        with pytest.raises(UnusableRowError):
            encoded(proxy, row)


ROWS = [
    {"prompt": "Question: What is the capital of France?", "completion": "Paris is the capital."},
    {"prompt": "one two", "completion": "three four five six seven"},
    {"prompt": "Question: one two three four five?", "completion": "ten"},
]


def eager(path: Path, batch: Batch) -> Any:
    model = AutoModelForCausalLM.from_pretrained(path, attn_implementation="eager").eval()
    with torch.no_grad():
        return model(**batch.arguments(), output_attentions=True, output_hidden_states=True)


def test_readings_are_those_of_the_model(plain_llama: Path) -> None:
    proxy = loaded(plain_llama)
    rows = [encoded(proxy, row) for row in ROWS]
    batch = batch_of(proxy, rows)
    wanted = frozenset({"singular_values", "loss", "embedding", "activations"})
    found = read_batch(proxy, batch, wanted, top_k=3)
    for place, row in enumerate(rows):
        alone = batch_of(proxy, [row])
        output = eager(plain_llama, alone)
        attention = sum(layer[0].double().mean(dim=0) for layer in output.attentions).numpy()
        learnt = row.labels != IGNORED
        block = attention[learnt][:, ~learnt]
        values = np.linalg.svd(block, compute_uv=False)[:3]
        np.testing.assert_allclose(
            found["singular_values"][place, : len(values)], values, atol=1e-6
        )
        logp = torch.log_softmax(output.logits[0, :-1].double(), dim=1)
        target = alone.labels[0, 1:]
        answer = target != IGNORED
        loss = -logp[answer].gather(1, target[answer][:, None]).mean()
        assert found["loss"][place] == pytest.approx(float(loss), abs=1e-5)
        hidden = output.hidden_states[-1][0].mean(dim=0).numpy()
        np.testing.assert_allclose(found["embedding"][place], hidden, atol=1e-5)
    assert np.isfinite(found["activations"]).all()


@pytest.mark.parametrize("begin", [True, False])
def test_ifd_is_the_loss_with_over_without_the_prompt(plain_llama: Path, begin: bool) -> None:
    proxy = loaded(plain_llama)
    rows = [encoded(proxy, row) for row in ROWS[:2]]
    if not begin:
        proxy.encoder.begin = None
    found = read_batch(proxy, batch_of(proxy, rows), frozenset({"ifd"}))["ifd"]
    for place, row in enumerate(rows):
        learnt = torch.from_numpy(row.labels != IGNORED)
        ids = torch.from_numpy(row.ids).long()
        answer = ids[learnt]
        alone = torch.cat([ids[:1], answer]) if begin else answer
        asked = eager_loss(proxy, ids, len(answer) - (not begin))
        without = eager_loss(proxy, alone, len(answer) - (not begin))
        assert found[place] == pytest.approx(asked / without, abs=1e-5)


def eager_loss(proxy: Proxy, ids: torch.Tensor, last: int) -> float:
    """Mean loss of the last tokens."""
    with torch.no_grad():
        logp = torch.log_softmax(proxy.model(input_ids=ids[None]).logits[0, :-1].double(), dim=1)
    found = -logp.gather(1, ids[1:, None])[:, 0]
    return float(found[-last:].mean())


def instructions(count: int, copies: int) -> list[dict[str, Any]]:
    """Rows of which the last are near-copies of the first."""
    numbers = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
    rows: list[dict[str, Any]] = []
    for n in range(count):
        a, b = numbers[n % 10], numbers[(n // 10 + n) % 10]
        rows.append(
            {"id": f"r{n}", "prompt": f"What comes after {a} {b}?", "completion": f"{b} {a}"}
        )
    for n in range(copies):
        rows.append({**rows[n % 3], "id": f"c{n}"})
    return rows


def select(folder: Path, path: Path, **more: Any) -> Result:
    fine_tune = {"epochs": 2, "checkpoints": 3, "batch_rows": 8, "learning_rate": 3e-3}
    fields = {
        "dataset": {"rows": instructions(30, 10)},
        "model": {"name": str(path), "fine_tune": fine_tune},
        "budget": {"count": 10},
    }
    spec = Spec.model_validate({**fields, **more})
    models = Models(any_path=True)
    return run(spec, LocalContext(folder / "job", spec, inputs=folder, models=models))


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("xmas", {"clusters": 4}),
        ("s2l", {"clusters": 4}),
        ("coincide", {"clusters": 4}),
        ("semdedup", {"clusters": 2}),
        ("d2", {}),
        ("el2n", {}),
        ("perplexity", {}),
        ("ifd", {}),
        ("grand", {}),
    ],
)
def test_methods_from_a_text_model(
    llama: Path, tmp_path: Path, method: str, params: dict[str, Any]
) -> None:
    result = select(tmp_path, llama, method=method, params=params, duplicates="drop")
    assert result.selected == 10
    assert result.candidates == 30
    assert result.proxy is not None
    assert result.proxy.losses[-1] < result.proxy.losses[0]
    assert any(piece.learnt for piece in result.proxy.preview[0].pieces)


def test_the_order_of_the_file_changes_no_reading_of_ifd(llama: Path, tmp_path: Path) -> None:
    rows = instructions(12, 0)
    fields = {"model": {"name": str(llama), "fine_tune": None}, "method": "ifd"}
    found = []
    for place, given in enumerate((rows, rows[::-1])):
        folder = tmp_path / str(place)
        result = select(folder, llama, dataset={"rows": given}, budget={"count": 12}, **fields)
        ids = (folder / "job" / result.artifacts["ids"].id).read_text().splitlines()
        found.append([json.loads(line) for line in ids])
    assert found[0] == found[1]


@pytest.mark.parametrize("method", ["less", "icons"])
def test_gradients_of_adapters(llama: Path, tmp_path: Path, method: str) -> None:
    target = {"rows": [{"prompt": "What comes after one two?", "completion": "two one"}]}
    lora = {"rank": 2}
    fine_tune = {"epochs": 1, "checkpoints": 2, "batch_rows": 8, "learning_rate": 1e-2}
    result = select(
        tmp_path,
        llama,
        model={"name": str(llama), "fine_tune": fine_tune | {"lora": lora}},
        method=method,
        target=target,
        output={"what": ["indices", "model"]},
    )
    assert result.selected == 10
    folder = tmp_path / "job" / result.artifacts["model"].id
    assert folder.exists()


def test_adapter_influence_is_the_cosine_of_gradients(plain_llama: Path) -> None:
    proxy = loaded(plain_llama, lora=Lora(rank=2), seed=1)
    rows = [batch_of(proxy, [encoded(proxy, row)]) for row in ROWS]
    weights = list(proxy.trainable(False).values())
    assert weights
    assert all(weight.requires_grad for weight in weights)
    gradients = []
    for row in rows:
        proxy.model.zero_grad()
        proxy.model(**row.arguments(), labels=row.labels).loss.backward()
        flat = torch.cat([weight.grad.flatten() for weight in weights]).double()
        gradients.append(flat / flat.norm())
    found = AdapterGradients(proxy, np.array([0, 0]))
    for row in rows[:2]:
        found.add(row, np.array([0]))
    expected = float((gradients[2] @ (gradients[0] + gradients[1])) / 2)
    assert found.influences(rows[2])[0, 0] == pytest.approx(expected, abs=1e-5)


def test_a_merged_proxy_answers_like_the_one_with_adapters(plain_llama: Path) -> None:
    proxy = loaded(plain_llama, lora=Lora(rank=2, modules=["q_proj", "v_proj"]))
    for weight in proxy.trainable(False).values():
        torch.nn.init.normal_(weight, std=0.1)
    batch = batch_of(proxy, [encoded(proxy, ROWS[0])])
    with torch.no_grad():
        before = proxy.model(**batch.arguments()).logits
        merged = proxy.merged()
        after = merged(**batch.arguments()).logits
    np.testing.assert_allclose(after, before, atol=1e-4)
    assert not any("lora" in name for name, _ in merged.named_parameters())


def test_adapters_that_fit_nowhere_are_refused(plain_llama: Path) -> None:
    with pytest.raises(JobError, match=r"names no layer of the model, which has .*q_proj"):
        loaded(plain_llama, lora=Lora(modules=["query"]))


@pytest.mark.parametrize("save", [save_qwen2_vl, save_qwen2_5_vl])
def test_models_with_positions_of_their_own_for_images(
    tmp_path: Path, save: Callable[[Path, list[str]], Path]
) -> None:
    folder = save(tmp_path / "model", WORDS)
    proxy = loaded(folder)
    row = {
        "messages": [
            {
                "role": "user",
                "content": [{"type": "image"}, {"type": "text", "text": "what is it"}],
            },
            {"role": "assistant", "content": "a b c"},
        ]
    }
    small, large = tiny.png(0), tiny.png(1, 96)
    rows = [encoded(proxy, row, [small]), encoded(proxy, row, [large])]
    batch = batch_of(proxy, rows)
    found = read_batch(proxy, batch, frozenset({"singular_values", "loss"}), top_k=3)
    processor = load_processor(str(folder), {"revision": None})
    model = AutoModelForImageTextToText.from_pretrained(folder, attn_implementation="eager").eval()
    for place, picture in enumerate((small, large)):
        given = whole(processor, row, picture)
        own = given["mm_token_type_ids"] == 1
        assert (own == (given["input_ids"] == proxy.image_token_id)).all()
        ids = torch.from_numpy(rows[place].ids).long()[None]
        given["input_ids"], given["attention_mask"] = ids, torch.ones_like(ids)
        given["mm_token_type_ids"] = (ids == proxy.image_token_id).long()
        with torch.no_grad():
            output = model(**given, output_attentions=True)
        image = (given["input_ids"][0] == proxy.image_token_id).numpy()
        first = np.flatnonzero(image)[0]
        after = ~image & (np.arange(len(image)) > first)
        attention = sum(layer[0].double().mean(dim=0) for layer in output.attentions).numpy()
        values = np.linalg.svd(attention[after][:, image], compute_uv=False)[:3]
        np.testing.assert_allclose(found["singular_values"][place], values, atol=2e-6)


def whole(processor: Any, row: dict[str, Any], picture: bytes) -> Any:
    """The row as the processor itself makes it."""
    from methods.select_subset.data.images import decode

    messages = [
        {**turn, "content": [{"type": "text", "text": turn["content"]}]}
        if isinstance(turn["content"], str)
        else turn
        for turn in row["messages"]
    ]
    text = processor.apply_chat_template(messages, tokenize=False)
    pictures = [decode(picture)]
    return processor(text=text, images=pictures, add_special_tokens=False, return_tensors="pt")


def test_a_model_that_sees_the_prompt_both_ways(tmp_path: Path) -> None:
    folder = save_paligemma(tmp_path / "model", WORDS)
    proxy = loaded(folder)
    row = {"prompt": "what is it", "completion": "a b c"}
    found = encoded(proxy, row, [tiny.png(0)])
    batch = batch_of(proxy, [found])
    read = read_batch(proxy, batch, frozenset({"singular_values", "loss"}), top_k=3)
    model = AutoModelForImageTextToText.from_pretrained(folder, attn_implementation="eager").eval()
    answer = np.flatnonzero(found.labels != IGNORED)[0]
    kinds = torch.zeros_like(batch.ids)
    kinds[0, answer:] = 1
    with torch.no_grad():
        output = model(**batch.arguments(), token_type_ids=kinds, output_attentions=True)
    layers = [layer[0].double().mean(dim=0).numpy() for layer in output.attentions]
    # The prompt's first token looks at its last one, and at no token of the answer.
    assert layers[0][0, answer - 1] > 0
    assert layers[0][0, answer] == 0
    image = (batch.ids[0] == proxy.image_token_id).numpy()
    after = ~image & (np.arange(len(image)) > np.flatnonzero(image)[0])
    values = np.linalg.svd(sum(layers)[after][:, image], compute_uv=False)[:3]
    np.testing.assert_allclose(read["singular_values"][0], values, atol=2e-6)


def test_an_image_by_url_is_refused_with_the_cure(tmp_path: Path) -> None:
    folder = save_qwen2_vl(tmp_path / "model", WORDS)
    asked = [{"type": "image_url", "image_url": {"url": "https://pictures.test/a.png"}}]
    turns = [{"role": "user", "content": asked}, {"role": "assistant", "content": "a"}]
    with pytest.raises(JobError, match="a URL, which is not fetched: put its file into"):
        select(tmp_path, folder, dataset={"rows": [{"messages": turns}]})


def test_an_image_in_tiles(tmp_path: Path) -> None:
    folder = save_idefics3(tmp_path / "model", WORDS)
    proxy = loaded(folder)
    row = {"prompt": "what is it", "completion": "a b c"}
    rows = [encoded(proxy, row, [tiny.png(seed, side)]) for seed, side in ((0, 24), (1, 96))]
    batch = batch_of(proxy, rows)
    read = read_batch(proxy, batch, frozenset({"singular_values"}), top_k=3)
    model = AutoModelForImageTextToText.from_pretrained(folder, attn_implementation="eager").eval()
    for place, one in enumerate(rows):
        alone = batch_of(proxy, [one])
        with torch.no_grad():
            output = model(**alone.arguments(), output_attentions=True)
        image = (alone.ids[0] == proxy.image_token_id).numpy()
        after = ~image & (np.arange(len(image)) > np.flatnonzero(image)[0])
        attention = sum(layer[0].double().mean(dim=0) for layer in output.attentions).numpy()
        values = np.linalg.svd(attention[after][:, image], compute_uv=False)[:3]
        np.testing.assert_allclose(read["singular_values"][place], values, atol=2e-6)
