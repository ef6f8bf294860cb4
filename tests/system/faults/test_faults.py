"""A short seed of the fault suite; `make faults` is the long run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.system.faults.run import run

pytestmark = pytest.mark.system


@pytest.mark.timeout(600)
def test_nothing_is_lost_nothing_happens_twice(tmp_path: Path) -> None:
    report = run(seed=7, faults=30, pace=1.0, workers=3, logs=tmp_path / "logs")
    assert report.lost == []
    assert report.double_effects == []
    assert report.violations == []
    assert report.surprises == []
    assert report.doctor == ""
    assert report.jobs > 0
