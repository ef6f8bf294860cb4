"""What is made of what pip-audit says."""

from __future__ import annotations

import json

import pytest

from tests.deployment import audit


def said(*packages: dict[str, object]) -> str:
    return json.dumps({"dependencies": packages, "fixes": []})


CLEAN = {"name": "anyio", "version": "4.0", "vulns": []}
BAD = {"name": "jinja2", "version": "2.0", "vulns": [{"id": "PYSEC-1"}, {"id": "PYSEC-2"}]}
UNKNOWN = {"name": "torch", "skip_reason": "Dependency not found on PyPI"}


@pytest.mark.parametrize(
    ("out", "err", "failed", "words"),
    [
        (said(CLEAN, UNKNOWN), "", False, "Audited 1 of 2 pinned packages"),
        (said(CLEAN, BAD), "Found 2 known", True, "jinja2 2.0: PYSEC-1, PYSEC-2"),
        (said(UNKNOWN), "", False, "Audited 0 of 1 pinned packages (the advisory service knows"),
        ("", "Traceback\nConnectionError: no route\n", False, "Not audited: ConnectionError: no"),
        ("", "", False, "Not audited: no output"),
    ],
)
def test_only_a_vulnerability_is_a_failure(out: str, err: str, failed: bool, words: str) -> None:
    found = audit.read(out, err)
    assert bool(found.vulnerable) is failed
    assert words in str(found)
