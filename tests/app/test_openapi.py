"""The API is the stored document, until somebody changes both."""

from __future__ import annotations

import difflib

from tests.app.openapi import STORED, document


def test_the_api_is_the_one_that_is_stored() -> None:
    stored, found = STORED.read_text(), document()
    diff = difflib.unified_diff(stored.splitlines(), found.splitlines(), "stored", "now", n=2)
    changes = "\n".join(list(diff)[:200])
    assert stored == found, f"meant? then `python -m tests.app.openapi`\n{changes}"
