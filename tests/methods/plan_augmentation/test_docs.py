"""The worked example of the documentation, run as it stands."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.methods.worked_examples import run_examples


@pytest.mark.timeout(300)
def test_worked_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for printed, expected in run_examples("plan-augmentation"):
        assert printed == expected
