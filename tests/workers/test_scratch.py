"""A killed worker leaves nothing on the disk for long."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from workers.scratch import Scratch

_WORKER = """
from workers.scratch import Scratch
with Scratch().folder("job_killed") as folder:
    (folder / "large").write_text("x")
    print(folder, flush=True)
    input()
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)


def test_the_next_worker_clears_up_after_one_that_was_killed() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _WORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as worker:
        assert worker.stdout is not None
        folder = Path(worker.stdout.readline().strip())
        Scratch().close()
        assert (folder / "large").exists(), "its owner lives"
        worker.kill()
    next_one = Scratch()
    assert not folder.parent.exists()
    with next_one.folder("job_next") as own:
        assert list(own.iterdir()) == []
    next_one.close()
