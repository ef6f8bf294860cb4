"""The API is the stored document, until somebody changes both."""

from __future__ import annotations

import difflib
import subprocess
import sys
from pathlib import Path

from tests.app.openapi import STORED


def test_the_api_is_the_one_that_is_stored() -> None:
    # In a process of its own: other tests of this one have loaded their toys.
    command = [sys.executable, "-m", "tests.app.openapi", "-"]
    root = Path(__file__).parents[2]
    found = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout
    stored = STORED.read_text()
    diff = difflib.unified_diff(stored.splitlines(), found.splitlines(), "stored", "now", n=2)
    changes = "\n".join(list(diff)[:200])
    assert stored == found, f"meant? then `python -m tests.app.openapi`\n{changes}"
