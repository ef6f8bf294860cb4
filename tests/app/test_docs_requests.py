"""Every request of the documentation is taken as it is written."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from datassay import Client, InvalidSpec

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "client/README.md", *sorted((ROOT / "docs").glob("*.md"))]
_POST = re.compile(r"^( *)(?:curl .*)?POST /v1/jobs/([a-z-]+)$", re.MULTILINE)


def requests() -> list[tuple[str, str, dict[str, Any]]]:
    """Page, job type and body of every request that a page shows with its body."""
    found = []
    for page in PAGES:
        text = page.read_text()
        for match in _POST.finditer(text):
            after = text[match.end() :].lstrip("\n")
            if not after.lstrip().startswith("{"):
                continue
            body, _ = json.JSONDecoder().raw_decode(after.lstrip())
            found.append((page.name, match[2], body))
    return found


REQUESTS = requests()


def test_the_pages_have_requests() -> None:
    assert len({kind for _, kind, _ in REQUESTS}) >= 10


@pytest.mark.parametrize(
    ("kind", "body"),
    [(kind, body) for _, kind, body in REQUESTS],
    ids=[f"{page}-{kind}-{place}" for place, (page, kind, _) in enumerate(REQUESTS)],
)
def test_a_request_is_taken_as_written(api: Client, tmp_path: Path, kind: str, body: Any) -> None:
    assert set(body) <= {"spec", "labels", "priority", "timeout", "cache"}
    path = tmp_path / "rows.jsonl"
    path.write_text('{"id": 1}\n')
    spec = filled(body["spec"], api.files.upload(path).id)
    faults = []
    faults = []
    faults = []
    try:
        api.jobs.create(kind, spec, dry_run=True)
    except InvalidSpec as error:
        faults = error.errors or [error]
    # Models are the operator's, and none is declared here; what jobs made is the user's.
    assert not [one for one in faults if not re.search(r"model|art_", str(one))]


def filled(value: Any, file: str) -> Any:
    """The body with a file that exists in the place of the ones that it stands for."""
    if isinstance(value, dict):
        return {key: filled(one, file) for key, one in value.items()}
    if isinstance(value, list):
        return [filled(one, file) for one in value]
    if isinstance(value, str) and re.fullmatch(r"file_\W*\w{0,12}\W*", value):
        return file
    return value
