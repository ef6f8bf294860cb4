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

from infra.ids import new_id
from models import transitions
from models.states import FOLLOWERS, LEASED, TERMINAL, JobState
from tests.database import empty
from tests.models.factories import add_job, add_tenant

LEASE = timedelta(seconds=60)
LOST = timedelta(seconds=-1)  # a lease that is over as soon as it is taken
OCCUPIES = {"QUEUED", "RUNNING", "CANCELLING", "SUCCEEDED"}
ERROR = {"code": "internal", "message": "m", "origin": "system", "retryable": True, "details": {}}


def part(key: str, **changes: Any) -> dict[str, Any]:
    """What a runner asks for with `fan_out`."""
    given = {"id": new_id("job"), "type": "part", "type_version": "1", "resource": "cpu"}
    rest = {"spec": {}, "inputs": [], "timeout_seconds": 60.0, "content_key": key}
    return {**given, **rest, **changes}


class JobProtocol(RuleBasedStateMachine):
    """Any interleaving of gateway, workers and sweeper keeps the promises of the protocol."""

    engine: Engine
    jobs = Bundle("jobs")
    holds = Bundle("holds")

    def __init__(self) -> None:
        super().__init__()
        with self.engine.begin() as connection:
            empty(connection)
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

    @rule(target=jobs, hold=holds, keys=st.sets(st.sampled_from("abc"), min_size=1))
    def fan_out(self, hold: tuple[str, int], keys: set[str]) -> Any:
        owned = self.owns(hold)
        made = []
        with self.engine.begin() as connection:
            for place, key in enumerate(sorted(keys)):
                row = connection.execute(transitions.submit_child(*hold, part(key), place)).first()
                link = transitions.link_child(*hold, key, place, reused=row is None)
                linked = connection.execute(link).first()
                assert row is None or (owned and linked.child_id == row.id)
                made += [] if row is None else [row.id]
        for key in keys if owned else ():
            found = {self.row(child)["state"] for child in self.children(hold[0], key)}
            # A child that is being cancelled for others holds the key until it has stopped.
            assert found & {"QUEUED", "RUNNING", "SUCCEEDED", "FAILED"} or self.cancelling(key)
        return multiple(*made)

    @rule(target=holds, hold=holds, lost=st.booleans())
    def run_child_inline(self, hold: tuple[str, int], lost: bool) -> Any:
        lease = LOST if lost else LEASE
        rows = self.execute(transitions.claim_child(hold[0], "w1", ["cpu"], lease))
        if not rows:
            return multiple()
        assert rows[0].id in self.children(hold[0], rows[0].content_key)
        return rows[0].id, rows[0].attempt

    @rule(of=st.none() | jobs)
    def cancel_unneeded(self, of: str | None) -> None:
        for row in self.execute(transitions.cancel_unneeded(100, of)):
            assert row.content_key is not None
            assert not self.needed(row.id)
        if of is None:
            idle = "state IN ('QUEUED', 'RUNNING') AND content_key IS NOT NULL"
            assert all(self.needed(job) for job in self.ids(f"SELECT id FROM jobs WHERE {idle}"))

    @rule()
    def reap(self) -> None:
        for row in self.execute(transitions.rescue_stalled(100, timedelta())):
            assert row.state in {JobState.QUEUED, JobState.FAILED, JobState.CANCELLED}

    @rule(job=jobs)
    def cancel(self, job: str) -> None:
        before, needed = self.row(job)["state"], self.needed(job)
        rows = self.execute(transitions.cancel(self.tenant, job))
        assert bool(rows) == (before in {"QUEUED", "RUNNING"} and not needed)

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

    def ids(self, statement: str, **values: str) -> list[str]:
        with self.engine.begin() as connection:
            return list(connection.execute(text(statement), values).scalars())

    def children(self, parent: str, key: str) -> list[str]:
        return self.ids(
            "SELECT id FROM jobs JOIN job_children ON child_id = id "
            "WHERE parent_id = :parent AND content_key = :key",
            parent=parent,
            key=key,
        )

    def cancelling(self, key: str) -> bool:
        wanted = "SELECT id FROM jobs WHERE content_key = :key AND state = 'CANCELLING'"
        return bool(self.ids(wanted, key=key))

    def needed(self, child: str) -> bool:
        parents = self.ids("SELECT parent_id FROM job_children WHERE child_id = :id", id=child)
        return any(self.row(parent)["state"] in {"QUEUED", "RUNNING"} for parent in parents)

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
        keys = [r["content_key"] for r in rows if r["content_key"] and r["state"] in OCCUPIES]
        assert len(keys) == len(set(keys)), "one child for all that need the same"
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
                # A result that is used again is kept for longer.
                assert row["expires_at"] >= past["expires_at"]
                assert row | {"expires_at": None} == past | {"expires_at": None}, "final"
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


@pytest.mark.timeout(600)  # a minute where nothing else runs
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


def test_children_of_an_older_job_come_before_a_younger_one(engine: Engine) -> None:
    with engine.begin() as connection:
        tenant = add_tenant(connection)
        old, young = add_job(connection, tenant), add_job(connection, tenant)
        urgent = add_job(connection, tenant, priority=5)
        connection.execute(text("UPDATE jobs SET priority = 9 WHERE id = :id"), {"id": old})
        assert connection.execute(transitions.claim("w", ["cpu"], LEASE)).one().id == old
        connection.execute(text("UPDATE jobs SET priority = 0 WHERE id = :id"), {"id": old})
        # Their ids say nothing of their places.
        for place, key in ((1, "a"), (0, "b"), (2, "c")):
            connection.execute(transitions.submit_child(old, 1, part(key), place)).one()
            connection.execute(transitions.link_child(old, 1, key, place, reused=False)).one()
        helped = connection.execute(transitions.claim_child(old, "w", ["cpu"], LEASE)).one()
        order = [connection.execute(transitions.claim("w", ["cpu"], LEASE)).one() for _ in range(4)]
    assert helped.content_key == "b"
    assert [row.content_key or row.id for row in order] == [urgent, "a", "c", young]


def test_children_are_shared_within_a_tenant_only(engine: Engine) -> None:
    with engine.begin() as connection:
        tenants = [add_tenant(connection, name) for name in ("acme", "acme", "other")]
        parents = [add_job(connection, tenant) for tenant in tenants]
        for _ in parents:
            connection.execute(transitions.claim("w", ["cpu"], LEASE)).one()
        made = [
            connection.execute(transitions.submit_child(parent, 1, part("a"), 0)).first()
            for parent in parents
        ]
    assert [row is not None for row in made] == [True, False, True]
    assert (made[0].tenant_id, made[2].tenant_id) == (tenants[0], tenants[2])


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
