"""Only `models/transitions` writes the state of a job: the sources are read to see it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("app", "infra", "models", "server", "workers")
JOBS = {"Job", "jobs", "_jobs"}


def statements(source: str) -> Iterator[str]:
    """Inserts into and updates of the table of jobs that name `state`, and assignments to it."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Assign, ast.AugAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for target in targets:
                if isinstance(target, ast.Attribute) and target.attr == "state":
                    yield ast.unparse(node)
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        if node.func.attr not in ("values", "from_select"):
            continue
        chain = ast.unparse(node.func.value)
        named = {word.arg for word in node.keywords}
        named |= {c.value for c in ast.walk(node) if isinstance(c, ast.Constant)}
        of_jobs = any(
            f"{verb}({table})" in chain for verb in ("insert", "update") for table in JOBS
        )
        if of_jobs and "state" in named:
            yield ast.unparse(node)


def test_nothing_else_writes_it() -> None:
    found = {}
    for path in sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py")):
        if "transitions" not in path.parts and (written := list(statements(path.read_text()))):
            found[str(path.relative_to(ROOT))] = written
    assert found == {}


def test_the_transitions_do() -> None:
    sources = (ROOT / "models" / "transitions").glob("*.py")
    assert sum(len(list(statements(path.read_text()))) for path in sources) >= 6


@pytest.mark.parametrize(
    "source",
    [
        "update(Job).where(Job.id == i).values(state='FAILED')",
        "insert(Job).values(**row, state=JobState.QUEUED)",
        "update(jobs).values({'state': 'QUEUED'})",
        "job.state = 'FAILED'",
    ],
)
def test_a_write_is_found(source: str) -> None:
    assert list(statements(source))
