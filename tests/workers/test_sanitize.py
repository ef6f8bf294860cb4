"""NUL characters and halves of surrogate pairs in what a runner says are replaced."""

from __future__ import annotations

import pytest
from datassay import Client

from tests.services import Workplace

SHOWN = "a\ufffdb\ufffdc"


@pytest.mark.parametrize("kind", ["toy", "toy-isolated"])
@pytest.mark.parametrize(
    ("action", "state"),
    [
        ("odd-result", "SUCCEEDED"),
        ("odd-error", "FAILED"),
        ("odd-crash", "FAILED"),
        ("odd-log", "SUCCEEDED"),
        ("odd-progress", "SUCCEEDED"),
        ("odd-checkpoint", "SUCCEEDED"),
    ],
)
def test_odd_texts(api: Client, workplace: Workplace, kind: str, action: str, state: str) -> None:
    job = api.jobs.create(kind, {"action": action}, max_attempts=1)
    workplace.run()
    job.refresh()
    assert (job.raw_state, job.attempt) == (state, 1), job.error
    events = list(api.jobs.events(job.id))
    said = job.model_dump_json() + "".join(event.model_dump_json() for event in events)
    assert "\\u0000" not in said
    assert SHOWN in said or action == "odd-checkpoint"
    if action == "odd-result":
        assert job.result().data["text"] == SHOWN
    if action == "odd-error":
        assert job.error is not None
        assert job.error.details == {SHOWN: [SHOWN]}
