"""What is made of what pip-audit says."""

from __future__ import annotations

import json
from pathlib import Path
from shlex import quote

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
        ("", "ERROR: Could not connect to the feed\n", False, "Not audited: ERROR: Could not"),
        ("", "ERROR: requirement x is not pinned\n", True, "Not audited: ERROR: requirement x"),
        ("", "", True, "Not audited: no output"),
    ],
)
def test_a_silent_service_is_no_failure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], out: str, err: str, failed: bool, words: str
) -> None:
    command = tmp_path / "pip-audit"
    command.write_text(f"#!/bin/sh\nprintf %s {quote(out)}; printf %s {quote(err)} >&2; exit 1\n")
    command.chmod(0o755)
    assert audit.main(str(command), ["constraints.txt"]) == failed
    assert words in capsys.readouterr().out
