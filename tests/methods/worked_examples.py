"""Runs the examples of a documentation page, each with the output that the page prints below it."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[2] / "docs"
BLOCK = re.compile(r"^```python\n(.*?)^```\n+^```text\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def run_examples(page: str) -> Iterator[tuple[str, str]]:
    """What every example printed, and what the page says; names live on from one to the next."""
    text = (DOCS / f"{page}.md").read_text()
    blocks = BLOCK.findall(text)
    assert len(blocks) == text.count("```python"), "every example has its output below it"
    namespace: dict[str, Any] = {}
    for code, expected in blocks:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code, f"{page}.md", "exec"), namespace)
        yield printed.getvalue(), expected
