"""The job protocol over a real Postgres, driven at random by several virtual workers."""

from __future__ import annotations

import itertools
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import Engine, text

from models import transitions
from models.states import FOLLOWERS, LEASED, TERMINAL, JobState
from tests.models.factories import add_job, add_tenant

LEASE = timedelta(seconds=60)
LOST = timedelta(seconds=-1)  # a lease that is over as soon as it is taken
ERROR = {"code": "internal", "message": "m", "origin": "system", "retryable": True, "details": {}}


class JobProtocol(RuleBasedStateMachine):
    """Any interleaving of gateway, workers and sweeper keeps the promises of the protocol."""

    engine: Engine
    jobs = Bundle("jobs")
    holds = Bundle("holds")

    def __init__(self) -> None:
        super().__init__()
        with self.engine.begin() as connection:
            connection.execute(text("TRUNCATE tenants, jobs CASCADE"))
            self.tenant = add_tenant(connection)
        self.seen: dict[str, dict[str, Any]] = {}
        self.committed: dict[str, list[int]] = {}

    def execute(self, statement: Any) -> list[Any]:
        with self.engine.begin() as connection:
            return list(connection.execute(statement).all())

    @rule(target=jobs, max_attempts=st.integers(1, 3))
    def submit(self, max_attempts: int) -> str:
        with self.engine.begin() as connection:
            return add_job(connection, self.tenant, max_attempts=max_attempts)

    @rule(target=holds, worker=st.sampled_from(["w1", "w2", "w3"]), lost=st.booleans())
    def claim(self, worker: str, lost: bool) -> Any:
        rows = self.execute(transitions.claim(worker, ["cpu"], LOST if lost else LEASE))
        if not rows:
            return multiple()
        assert rows[0].state == JobState.RUNNING
        assert rows[0].worker == worker
        return rows[0].id, rows[0].attempt

    @rule(hold=holds, lost=st.booleans(), told=st.booleans())
    def heartbeat(self, hold: tuple[str, int], lost: bool, told: bool) -> None:
        progress = {"phase": "p", "current": 1, "total": 2, "unit": "items"} if told else None
        rows = self.execute(transitions.heartbeat(*hold, LOST if lost else LEASE, progress))
        assert bool(rows) == self.owns(hold)

    @rule(hold=holds)
    def log(self, hold: tuple[str, int]) -> None:
        owned = self.owns(hold)
        assert bool(self.execute(transitions.log(*hold, "info", "text"))) == owned

    # A worker that finished may, as a zombie, try again: `holds` is not consumed.
    @rule(hold=holds)
    def finish(self, hold: tuple[str, int]) -> None:
        owned = self.owns(hold)
        rows = self.execute(transitions.finish(*hold, {"by": hold[1]}, {}))
        assert bool(rows) == owned
        if rows:
            self.committed.setdefault(hold[0], []).append(hold[1])

    @rule(hold=holds, retry=st.booleans())
    def fail(self, hold: tuple[str, int], retry: bool) -> None:
        before = self.row(hold[0])
        owned = self.owns(hold)
        backoff = timedelta() if retry else None
        rows = self.execute(transitions.fail(*hold, ERROR, backoff=backoff))
        assert bool(rows) == owned
        if rows:
            left = retry and before["failures"] + 1 < before["max_attempts"]
            cancelling = before["state"] == "CANCELLING"
            expected = "CANCELLED" if cancelling else "QUEUED" if left else "FAILED"
            assert rows[0].state == expected

    @rule(hold=holds)
    def stop_as_asked(self, hold: tuple[str, int]) -> None:
        asked = self.owns(hold) and self.row(hold[0])["state"] == "CANCELLING"
        rows = self.execute(transitions.cancelled(*hold))
        assert bool(rows) == asked

    @rule(hold=consumes(holds))
    def release(self, hold: tuple[str, int]) -> None:
        before, owned = self.row(hold[0]), self.owns(hold)
        rows = self.execute(transitions.release(*hold))
        assert bool(rows) == owned
        if rows:
            assert rows[0].failures == before["failures"]

    @rule()
    def reap(self) -> None:
        for row in self.execute(transitions.reap(100, timedelta())):
            assert row.state in {JobState.QUEUED, JobState.FAILED, JobState.CANCELLED}

    @rule(job=jobs)
    def cancel(self, job: str) -> None:
        before = self.row(job)["state"]
        rows = self.execute(transitions.cancel(self.tenant, job))
        assert bool(rows) == (before in {"QUEUED", "RUNNING"})

    @rule(job=jobs)
    def cancel_by_a_stranger(self, job: str) -> None:
        assert not self.execute(transitions.cancel("ten_of_somebody_else", job))

    @rule(job=jobs)
    def queue_deadline_passes(self, job: str) -> None:
        with self.engine.begin() as connection:
            connection.execute(
                text(
                    "UPDATE jobs SET queue_deadline = now() - interval '1 s' "
                    "WHERE id = :id AND state = 'QUEUED'"
                ),
                {"id": job},
            )
        for row in self.execute(transitions.expire_queued(100)):
            assert row.state == JobState.EXPIRED

    def row(self, job: str) -> dict[str, Any]:
        with self.engine.begin() as connection:
            found = connection.execute(text("SELECT * FROM jobs WHERE id = :id"), {"id": job})
            return dict(found.mappings().one())

    def owns(self, hold: tuple[str, int]) -> bool:
        row = self.row(hold[0])
        return row["attempt"] == hold[1] and row["state"] in LEASED

    @invariant()
    def laws_hold(self) -> None:
        with self.engine.begin() as connection:
            rows = connection.execute(text("SELECT * FROM jobs")).mappings().all()
            events = connection.execute(
                text("SELECT job_id, seq, kind, data, terminal FROM job_events ORDER BY 1, 2")
            ).all()
            attempts = connection.execute(
                text("SELECT job_id, number, ended_at FROM job_attempts ORDER BY 1, 2")
            ).all()
        for row in rows:
            job = row["id"]
            history = [e for e in events if e.job_id == job]
            self.check_against_past(dict(row))
            self.check_history(dict(row), history)
            starts = [a for a in attempts if a.job_id == job]
            assert [a.number for a in starts] == list(range(1, row["attempt"] + 1))
            live = [a for a in starts if a.ended_at is None]
            assert len(live) == (1 if row["state"] in LEASED else 0), "one live lease at most"
            assert (row["lease_until"] is not None) == (row["state"] in LEASED)
            assert len(self.committed.get(job, [])) <= 1, "one effect"
            assert (row["state"] == "SUCCEEDED") == bool(self.committed.get(job))

    def check_against_past(self, row: dict[str, Any]) -> None:
        past = self.seen.get(row["id"])
        if past is not None:
            assert row["attempt"] >= past["attempt"], "attempts only grow"
            assert row["version"] >= past["version"]
            if past["state"] in TERMINAL:
                assert row == past, "terminal is final"
        self.seen[row["id"]] = row

    def check_history(self, row: dict[str, Any], history: list[Any]) -> None:
        assert [e.seq for e in history] == list(range(1, row["version"] + 1))
        terminal = [e for e in history if e.terminal]
        assert len(terminal) == (1 if row["state"] in TERMINAL else 0), "one terminal event"
        assert not terminal or terminal[0] is history[-1]
        states = [JobState(e.data["state"]) for e in history if e.kind == "state"]
        assert states[-1] == row["state"]
        for earlier, later in itertools.pairwise(states):
            assert later in FOLLOWERS[earlier]


def test_the_protocol_keeps_its_promises(engine: Engine) -> None:
    machine = type("Machine", (JobProtocol,), {"engine": engine})
    run_state_machine_as_test(
        machine, settings=settings(max_examples=40, stateful_step_count=40, deadline=None)
    )


@pytest.mark.parametrize(
    "change",
    [
        "state = 'RUNNING', lease_until = now(), finished_at = NULL, result = NULL",
        "state = 'QUEUED', finished_at = NULL, result = NULL",
        "attempt = attempt + 1",
        "finished_at = now()",
        "result = '{\"other\": 1}'",
        "version = version - 1",
    ],
)
def test_the_database_itself_keeps_terminal_states(engine: Engine, change: str) -> None:
    with engine.begin() as connection:
        job = add_job(connection, add_tenant(connection))
        connection.execute(transitions.claim("w", ["cpu"], LEASE))
        connection.execute(transitions.finish(job, 1, {"a": 1}, {}))
    with pytest.raises(Exception, match="CheckViolation"), engine.begin() as connection:
        connection.execute(text(f"UPDATE jobs SET {change} WHERE id = '{job}'"))


def test_the_database_refuses_a_skipped_transition(engine: Engine) -> None:
    with engine.begin() as connection:
        job = add_job(connection, add_tenant(connection))
    with (
        pytest.raises(Exception, match="SUCCEEDED does not follow QUEUED"),
        engine.begin() as connection,
    ):
        connection.execute(
            text("UPDATE jobs SET state = 'SUCCEEDED', finished_at = now() WHERE id = :id"),
            {"id": job},
        )


def test_tenants_take_turns_then_priority_then_age(engine: Engine) -> None:
    with engine.begin() as connection:
        big, small = add_tenant(connection, "big"), add_tenant(connection, "small")
        first = [add_job(connection, big) for _ in range(3)]
        urgent = add_job(connection, big, priority=5)
        late = add_job(connection, small)
        add_job(connection, big, resource="gpu")
    claimed = []
    for _ in range(6):
        with engine.begin() as connection:
            row = connection.execute(transitions.claim("w", ["cpu"], LEASE)).first()
            claimed.append(None if row is None else row.id)
    assert claimed == [urgent, late, *first, None]


def test_a_released_job_keeps_its_attempts(engine: Engine) -> None:
    with engine.begin() as connection:
        job = add_job(connection, add_tenant(connection), max_attempts=1)
    for number in (1, 2, 3):
        with engine.begin() as connection:
            assert (
                connection.execute(transitions.claim("w", ["cpu"], LEASE)).one().attempt == number
            )
            assert connection.execute(transitions.release(job, number)).one().failures == 0


def test_the_wait_before_the_next_attempt_doubles(engine: Engine) -> None:
    with engine.begin() as connection:
        job = add_job(connection, add_tenant(connection), max_attempts=5)
    waits = []
    for number in (1, 2, 3):
        with engine.begin() as connection:
            connection.execute(text("UPDATE jobs SET not_before = now() - interval '1 s'"))
            connection.execute(transitions.claim("w", ["cpu"], LEASE))
            connection.execute(transitions.fail(job, number, ERROR, backoff=timedelta(seconds=100)))
            waits.append(
                connection.execute(
                    text("SELECT extract(epoch FROM not_before - now())::float FROM jobs")
                ).scalar_one()
            )
    for wait, centre in zip(waits, (100, 200, 400), strict=True):
        assert 0.7 * centre < wait < 1.3 * centre
