"""Runners that take their worker with them: the job is given up, the service goes on."""

from __future__ import annotations

import pytest

from tests.services import client
from tests.toys.up import Up

pytestmark = pytest.mark.system


@pytest.mark.timeout(180)
@pytest.mark.parametrize("action", ["exit", "segfault", "suicide", "hold"])
def test_a_runner_that_kills_its_worker_is_given_up(up: Up, action: str) -> None:
    """`hold` keeps the interpreter's lock for ever: nothing in the process could notice."""
    with up.client() as acme, client(up.url, up.settings(), tenant="blue") as blue:
        poison = acme.jobs.create("toy", {"action": action}, max_attempts=2)
        after = blue.jobs.create("toy", {})
        poison.wait(timeout=120, raise_on_failure=False)
        assert poison.error is not None
        assert (poison.raw_state, poison.error.code) == ("FAILED", "worker_lost")
        assert [a.outcome for a in poison.attempts()] == ["lost", "lost"]
        assert after.wait(timeout=60).raw_state == "SUCCEEDED"


def test_a_babbler_in_a_thread_costs_its_worker_nothing(up: Up) -> None:
    with up.client() as acme:
        workers = [process.pid for process in up.named("workers", "--queues")]
        assert acme.jobs.create("toy", {"action": "babble"}).wait(timeout=60).result()
        assert acme.jobs.create("toy", {}).wait(timeout=30).raw_state == "SUCCEEDED"
        assert [process.pid for process in up.named("workers", "--queues")] == workers
