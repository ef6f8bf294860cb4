"""The worked example of the documentation, run as it stands."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.methods.worked_examples import run_examples


def test_worked_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for printed, expected in run_examples("measure-modality-gap"):
        assert printed == expected
