"""The documentation pages of evaluate-scorers and calibrate-scorer say what their code prints."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.methods.worked_examples import run_examples


@pytest.mark.parametrize("page", ["evaluate-scorers", "calibrate-scorer"])
def test_worked_examples(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    outputs = list(run_examples(page))
    assert len(outputs) == 3
    for printed, expected in outputs:
        assert printed == expected
