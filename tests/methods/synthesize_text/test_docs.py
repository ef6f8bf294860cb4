"""The page says what its code prints; the notebook runs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.methods.synthesize_text import grammar
from tests.methods.worked_examples import run_examples

EXAMPLES = Path(__file__).parents[3] / "examples"


@pytest.fixture
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the example's sentences and a model that has read them."""
    shutil.copy(EXAMPLES / "capital-sentences.jsonl", tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "capital-sentences.jsonl").open()]
    texts = {
        word: [row["text"] for row in rows if row["label"] == label]
        for label, word in (("wrong", "false"), ("right", "true"))
    }
    words = {word for row in rows for word in row["text"].split()}
    grammar.train(
        tmp_path / "model",
        lambda word, rng: str(rng.choice(texts[word])),
        "A {word} sentence :",
        " This is {word}",
        sorted(words | {"A", "false", "true", "sentence", ":", "This", "is"}),
        ("false", "true"),
        steps=200,
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_worked_example(in_folder: Path) -> None:
    for printed, expected in run_examples("synthesize-text"):
        assert printed == expected


def test_notebook(in_folder: Path) -> None:
    notebook = json.loads((EXAMPLES / "synthesize_text.ipynb").read_text())
    names: dict[str, object] = {}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), names)
    figures = names["figures"]
    assert isinstance(figures, list)
    assert len(figures) >= 3
    assert np.isfinite(names["gain"])  # type: ignore[call-overload]
