"""Jobs that wait for their twin, and jobs that are answered from an earlier result."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, text

from models import queries, transitions
from models.states import JobState
from tests.models.factories import add_job, add_tenant, job_row

LEASE = timedelta(seconds=60)
ERROR = {"code": "internal", "message": "m", "origin": "system", "retryable": True, "details": {}}
KEY = bytes(32)


class Table:
    """The jobs table of one tenant."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        with engine.begin() as connection:
            self.tenant = add_tenant(connection)

    def add(self, **changes: Any) -> str:
        with self._engine.begin() as connection:
            return add_job(connection, self.tenant, cache_key=KEY, **changes)

    def run(self, *statement: Any) -> list[Any]:
        with self._engine.begin() as connection:
            return list(connection.execute(*statement).all())

    def claim(self) -> Any:
        rows = self.run(transitions.claim("w", ["cpu"], LEASE))
        return rows[0] if rows else None

    def job(self, job_id: str) -> Any:
        return self.run(*queries.jobs.get(self.tenant, job_id))[0]

    def states(self, job_id: str) -> list[tuple[int, str, Any]]:
        rows = self.run(text(f"SELECT * FROM job_events WHERE job_id = '{job_id}' ORDER BY seq"))
        return [(row.seq, row.kind, row.data.get("state")) for row in rows]


@pytest.fixture
def table(engine: Engine) -> Table:
    return Table(engine)


def test_a_waiting_job_is_not_claimed_and_ends_with_its_twin(table: Table) -> None:
    first = table.add()
    second = table.add(waits_for=first, priority=50)
    assert table.claim().id == first
    assert table.claim() is None
    assert table.run(transitions.claim_undispatched(10, timedelta(seconds=-1))) == []
    assert table.run(transitions.adopt_result(10)) == [], "not before the twin has ended"
    table.run(transitions.finish(first, 1, {"a": 1}, {"by": "w"}))
    (row,) = table.run(transitions.adopt_result(10))
    assert (row.id, row.state, row.hit_of, row.waits_for) == (second, "SUCCEEDED", first, None)
    assert (row.result, row.provenance, row.attempt) == ({"a": 1}, {"by": "w"}, 0)
    assert table.states(second) == [(1, "state", "QUEUED"), (2, "state", "SUCCEEDED")]
    assert table.run(transitions.adopt_result(10)) == []


@pytest.mark.parametrize("end", ["failed", "cancelled", "deleted"])
def test_without_a_result_the_oldest_runs_itself_and_the_rest_wait_for_it(
    table: Table, end: str
) -> None:
    first = table.add()
    others = [table.add(waits_for=first) for _ in range(3)]
    if end == "cancelled":
        table.run(transitions.cancel(table.tenant, first))
    else:
        assert table.claim().id == first
    if end == "failed":
        table.run(transitions.fail(first, 1, ERROR, backoff=None))
    if end == "deleted":
        table.run(transitions.finish(first, 1, {}, {}))
        table.run(transitions.soft_delete(table.tenant, first))
    assert table.run(transitions.adopt_result(10)) == []
    assert len(table.run(transitions.requeue_waiters(10))) == 3
    assert [table.job(job).waits_for for job in others] == [None, others[0], others[0]]
    assert table.run(transitions.requeue_waiters(10)) == []
    assert {row.id for row in table.run(transitions.claim_undispatched(9, LEASE))} == {others[0]}
    assert table.claim().id == others[0]
    table.run(transitions.finish(others[0], 1, {"b": 2}, {}))
    assert {row.id for row in table.run(transitions.adopt_result(10))} == set(others[1:])
    assert table.job(others[2]).hit_of == others[0]


def test_a_retried_twin_is_waited_for(table: Table) -> None:
    first = table.add()
    second = table.add(waits_for=first)
    table.claim()
    table.run(transitions.fail(first, 1, ERROR, backoff=timedelta()))
    assert (
        table.run(transitions.adopt_result(10)) == table.run(transitions.requeue_waiters(10)) == []
    )
    assert table.job(second).waits_for == first


def test_a_waiting_job_can_be_cancelled_and_expires(table: Table) -> None:
    first = table.add()
    second, third = table.add(waits_for=first), table.add(waits_for=first)
    assert table.run(transitions.cancel(table.tenant, second))[0].state == JobState.CANCELLED
    table.run(
        text(
            f"UPDATE jobs SET queue_deadline = now() - interval '1 s' WHERE id = '{third}'"
            " RETURNING id"
        )
    )
    assert [row.id for row in table.run(transitions.expire_queued(10))] == [third]
    table.claim()
    table.run(transitions.finish(first, 1, {}, {}))
    assert table.run(transitions.adopt_result(10)) == []


def test_reuse_takes_the_newest_result_of_that_tenant_and_names_its_maker(
    table: Table, engine: Engine
) -> None:
    asked = job_row(table.tenant, cache_key=KEY)
    assert table.run(transitions.reuse(asked)) == []
    maker = table.add()
    table.claim()
    assert table.run(transitions.reuse(asked)) == []
    table.run(transitions.finish(maker, 1, {"a": 1}, {"p": 1}))
    with engine.begin() as connection:
        stranger = add_tenant(connection, "other")
    assert table.run(transitions.reuse(job_row(stranger, cache_key=KEY))) == []
    assert table.run(transitions.reuse(job_row(table.tenant, cache_key=bytes(31) + b"1"))) == []
    (hit,) = table.run(transitions.reuse(asked))
    assert (hit.state, hit.hit_of, hit.result, hit.version) == ("SUCCEEDED", maker, {"a": 1}, 1)
    assert hit.expires_at - hit.finished_at == timedelta(seconds=asked["retention_seconds"])
    assert table.states(hit.id) == [(1, "state", "SUCCEEDED")]
    table.run(transitions.soft_delete(table.tenant, maker))
    (again,) = table.run(transitions.reuse(job_row(table.tenant, cache_key=KEY)))
    assert again.hit_of == maker, "the copy serves on, and the bytes are the maker's"
    for job in (hit.id, again.id):
        table.run(transitions.soft_delete(table.tenant, job))
    assert table.run(transitions.reuse(job_row(table.tenant, cache_key=KEY))) == []


def test_only_a_takeover_may_skip_the_worker(table: Table) -> None:
    job = table.add()
    with pytest.raises(Exception, match="SUCCEEDED does not follow QUEUED"):
        table.run(
            text(f"UPDATE jobs SET state = 'SUCCEEDED', finished_at = now() WHERE id = '{job}'")
        )
