"""What a job keeps is found by its next attempt, and by nothing that depends on something else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from methods.local import LocalContext
from methods.resume import ResumeStore


def test_a_later_attempt_finds_all_of_it(tmp_path: Path) -> None:
    first = ResumeStore(LocalContext(tmp_path), "x")
    first.keep("bytes", b"one")
    first.keep("bytes", b"two")
    values = np.array([0.1, np.nan, -0.0, 1e-310])
    first.keep_arrays("arrays", a=values, b=np.arange(3, dtype=np.int64))
    first.keep_value("value", {"loss": [0.1]})
    for path in first.path("bytes").parent.iterdir():
        path.unlink()  # the folder of an attempt goes with it
    later = ResumeStore(LocalContext(tmp_path), "x")
    assert later.find("bytes") == b"two"
    arrays = later.find_arrays("arrays")
    assert arrays is not None
    assert arrays["a"].tobytes() == values.tobytes(), "to the last bit"
    assert arrays["b"].dtype == np.int64
    assert later.find_value("value") == {"loss": [0.1]}


@pytest.mark.parametrize("identity", ["y", ""])
def test_of_another_identity_nothing_is_found(tmp_path: Path, identity: str) -> None:
    kept = ResumeStore(LocalContext(tmp_path), "x")
    kept.keep("a", b"of x")
    kept.keep_value("a", 1)
    other = ResumeStore(LocalContext(tmp_path), identity)
    assert (other.find("a"), other.find_arrays("a"), other.find_value("a")) == (None, None, None)


def test_a_torn_file_is_never_found(tmp_path: Path) -> None:
    store = ResumeStore(LocalContext(tmp_path), "x")
    store.path("a").with_suffix(".part").write_bytes(b"half of it")
    assert store.find("a") is None
