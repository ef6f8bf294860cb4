"""The documentation pages say what their code prints, up to what another processor changes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.methods.worked_examples import run_examples

NUMBER = re.compile(r"\d+\.\d+")
#: Float32 trainings are chaotic: another processor's last bits move an accuracy by this much.
TOLERANCE = 0.06


@pytest.mark.parametrize("page", ["distill-dataset", "rank-distilled-dataset"])
def test_worked_examples(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    outputs = list(run_examples(page))
    assert len(outputs) >= 1
    for found, expected in outputs:
        assert NUMBER.sub("#", found) == NUMBER.sub("#", expected)
        for mine, said in zip(NUMBER.findall(found), NUMBER.findall(expected), strict=True):
            assert float(mine) == pytest.approx(float(said), abs=TOLERANCE), found
