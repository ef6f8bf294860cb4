"""The worked examples of the documentation, run as they stand."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.methods.worked_examples import run_examples
from tests.toys import howto

EXAMPLES = Path(__file__).parents[3] / "examples"


@pytest.mark.timeout(300)
@pytest.mark.parametrize("page", ["align-safety", "score-responses"])
def test_worked_examples(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("howto", "howto-llama"):
        shutil.copytree(EXAMPLES / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    for printed, expected in run_examples(page):
        assert printed == expected


def test_the_rows_of_the_examples_are_those_of_the_world() -> None:
    for name, rows in howto.files().items():
        lines = (EXAMPLES / "howto" / f"{name}.jsonl").read_text().splitlines()
        assert [json.loads(line) for line in lines] == rows
