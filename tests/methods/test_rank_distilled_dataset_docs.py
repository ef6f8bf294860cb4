"""The documentation pages say what their code prints, up to what another processor changes."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path
from typing import Any

import pytest

DOCS = Path(__file__).parents[2] / "docs"
BLOCK = re.compile(r"^```python\n(.*?)^```\n+^```text\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NUMBER = re.compile(r"\d+\.\d+")
#: Float32 trainings are chaotic: another processor's last bits move an accuracy by this much.
TOLERANCE = 0.06


@pytest.mark.parametrize("page", ["distill-dataset", "rank-distilled-dataset"])
def test_worked_examples(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (DOCS / f"{page}.md").read_text()
    blocks = BLOCK.findall(text)
    assert len(blocks) == text.count("```python") >= 1
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {}
    for code, expected in blocks:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code, f"{page}.md", "exec"), namespace)
        found = printed.getvalue()
        assert NUMBER.sub("#", found) == NUMBER.sub("#", expected)
        for mine, said in zip(NUMBER.findall(found), NUMBER.findall(expected), strict=True):
            assert float(mine) == pytest.approx(float(said), abs=TOLERANCE), found
