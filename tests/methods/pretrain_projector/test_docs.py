"""The worked example of the documentation, run as it stands: the small real experiment."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.methods.worked_examples import run_examples
from tests.toys import scenes

EXAMPLES = Path(__file__).parents[3] / "examples"


@pytest.mark.timeout(400)
def test_worked_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("scenes", "scenes-llava"):
        shutil.copytree(EXAMPLES / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    for printed, expected in run_examples("pretrain-projector"):
        assert printed == expected


def test_the_rows_of_the_examples_are_those_of_the_world() -> None:
    for name, rows in scenes.files().items():
        lines = (EXAMPLES / "scenes" / f"{name}.jsonl").read_text().splitlines()
        assert [json.loads(line) for line in lines] == rows
