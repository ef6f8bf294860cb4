"""The API is the stored document, until somebody changes both; its names and words hold."""

from __future__ import annotations

import difflib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.app.openapi import STORED

ROOT = Path(__file__).parents[2]
SPEC = """\
from methods.jobtype import JobType, SpecModel

class {item}(SpecModel):
    text: str

class Spec(SpecModel):
    items: list[{item}]

class Result(SpecModel):
    n: int

JOB = JobType(
    name="count-words", version="1", title="Count words", summary="Counts words.",
    spec=Spec, result=Result, runner="methods.count_words.job:run",
)
"""


def document(*extra_methods: Path) -> str:
    # In a process of its own: other tests of this one have loaded their toys.
    command = [sys.executable, "-m", "tests.app.openapi", "-", *map(str, extra_methods)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return run.stdout


def test_the_api_is_the_one_that_is_stored() -> None:
    now, stored = document(), STORED.read_text()
    diff = difflib.unified_diff(stored.splitlines(), now.splitlines(), "stored", "now", n=2)
    changes = "\n".join(list(diff)[:200])
    assert stored == now, f"meant? then `python -m tests.app.openapi`\n{changes}"


def test_names_of_components_are_public() -> None:
    schemas = json.loads(STORED.read_text())["components"]["schemas"]
    assert [
        name for name in schemas if not re.fullmatch(r"[A-Z][A-Za-z0-9]*(_[A-Za-z_]+)?", name)
    ] == []
    assert [name for name in schemas if "__" in name] == []
    creating = re.findall(r'"/v1/jobs/([a-z-]+)": ', STORED.read_text())
    assert len(creating) >= 10
    for job_type in creating:
        name = "".join(part.capitalize() for part in job_type.split("-"))
        assert {f"{name}JobCreate", f"{name}Spec", f"{name}Result"} <= set(schemas)


def test_another_method_changes_no_component(tmp_path: Path) -> None:
    folder = tmp_path / "count_words"
    folder.mkdir()
    (folder / "spec.py").write_text(SPEC.format(item="Words"))
    before = json.loads(STORED.read_text())["components"]["schemas"]
    after = json.loads(document(tmp_path))["components"]["schemas"]
    added = {"CountWordsJobCreate", "CountWordsSpec", "CountWordsResult", "Words"}
    assert set(after) - set(before) == added
    assert {name: after[name] for name in before} == before


def test_a_name_that_is_taken_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "count_words"
    folder.mkdir()
    (folder / "spec.py").write_text(SPEC.format(item="Similarity"))
    command = [sys.executable, "-m", "tests.app.openapi", "-", str(tmp_path)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert (
        "the job type count-words has a model Similarity, and so has methods.score_h" in run.stderr
    )


def described(value: Any, pointer: str = "") -> Iterator[tuple[str, str]]:
    """Every description and summary of the document."""
    if isinstance(value, dict):
        for key, below in value.items():
            if key in ("description", "summary") and isinstance(below, str):
                yield f"{pointer}/{key}", below
            yield from described(below, f"{pointer}/{key}")
    elif isinstance(value, list):
        for index, below in enumerate(value):
            yield from described(below, f"{pointer}/{index}")


#: A description that begins with one of these needs the name of its field to be understood.
FRAGMENT = re.compile(
    r"(Of|To|At|By|With|For|In|On|From|Within|Without|As|Or|And|Per|Beside|Below|Above|Against)\b"
)


def test_descriptions_are_sentences_or_noun_phrases() -> None:
    texts = list(described(json.loads(STORED.read_text())))
    assert len(texts) > 1000
    assert [(at, text) for at, text in texts if FRAGMENT.match(text)] == []


def test_every_field_has_a_description() -> None:
    schemas = json.loads(STORED.read_text())["components"]["schemas"]
    assert [
        (component, field)
        for component, schema in schemas.items()
        for field, declared in schema.get("properties", {}).items()
        if not declared.get("description")
    ] == []


@pytest.mark.parametrize("text", ["Of sgd.", "To the minute.", "By another job."])
def test_a_fragment_is_found(text: str) -> None:
    assert FRAGMENT.match(text)


def test_operations_with_a_body_say_that_it_may_be_malformed() -> None:
    paths = json.loads(STORED.read_text())["paths"]
    with_body = {
        (path, method): operation["responses"]
        for path, operations in paths.items()
        for method, operation in operations.items()
        if isinstance(operation, dict) and "requestBody" in operation
    }
    assert len(with_body) > 15
    assert [where for where, known in with_body.items() if "400" not in known] == []
