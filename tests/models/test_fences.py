"""What an attempt writes beside the job's row, it writes only while the job is its own."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, text

from models import transitions
from tests.models.factories import add_job, add_tenant

LEASE, LOST = timedelta(seconds=60), timedelta(seconds=-1)
ERROR = {"code": "internal", "message": "m", "origin": "system", "retryable": True, "details": {}}
ARTIFACT = {
    "id": "art_1",
    "name": "a",
    "media_type": "text/plain",
    "size": 1,
    "sha256": "0",
    "storage_key": "jobs/j/1/art_1",
}


@pytest.fixture
def tenant(engine: Engine) -> str:
    with engine.begin() as connection:
        return add_tenant(connection)


def start(engine: Engine, tenant: str, lease: timedelta = LEASE, **job: Any) -> str:
    with engine.begin() as connection:
        job_id = add_job(connection, tenant, **job)
        assert connection.execute(transitions.claim("w", ["cpu"], lease)).one().id == job_id
    return job_id


def rows(engine: Engine, statement: Any) -> list[Any]:
    with engine.begin() as connection:
        return list(connection.execute(statement).all())


@contextmanager
def waiting_behind(engine: Engine, theft: Any, write: Any) -> Iterator[list[Any]]:
    """Steal the job, and only then, before the theft is committed, let its old owner write."""
    written: list[Any] = []
    with engine.connect() as thief:
        thief.execute(theft)
        writer = threading.Thread(target=lambda: written.extend(rows(engine, write)))
        writer.start()
        waits = text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
        while writer.is_alive():  # it waits for the thief; without a fence it ends at once
            if rows(engine, waits)[0][0]:
                break
        thief.commit()
        writer.join()
    yield written


@pytest.mark.parametrize("what", ["artifact", "checkpoint"])
def test_a_write_during_the_theft_is_refused(engine: Engine, tenant: str, what: str) -> None:
    job = start(engine, tenant, LOST)
    write = (
        transitions.add_artifact(job, 1, ARTIFACT)
        if what == "artifact"
        else transitions.save_checkpoint(job, 1, "step", "of the zombie")
    )
    with waiting_behind(engine, transitions.rescue_stalled(10, timedelta()), write) as written:
        assert written == []
    for table in ("artifacts", "job_checkpoints"):
        assert rows(engine, text(f"SELECT * FROM {table}")) == []


def test_an_artifact_may_be_recorded_again_when_the_answer_was_lost(
    engine: Engine, tenant: str
) -> None:
    job = start(engine, tenant)
    for _ in range(2):
        assert rows(engine, transitions.add_artifact(job, 1, ARTIFACT)) == [("art_1",)]
    assert len(rows(engine, text("SELECT * FROM artifacts"))) == 1


@pytest.mark.parametrize("end", ["fail", "give up", "release", "reap", "cancel", "finish"])
def test_artifacts_go_with_an_attempt_that_did_not_win(
    engine: Engine, tenant: str, end: str
) -> None:
    job = start(engine, tenant, LOST if end == "reap" else LEASE)
    rows(engine, transitions.add_artifact(job, 1, ARTIFACT))
    if end == "cancel":
        rows(engine, transitions.cancel(tenant, job))
    ends = {
        "fail": transitions.fail(job, 1, ERROR, backoff=timedelta()),
        "give up": transitions.fail(job, 1, ERROR, backoff=None),
        "release": transitions.release(job, 1),
        "reap": transitions.rescue_stalled(10, timedelta()),
        "cancel": transitions.cancelled(job, 1),
        "finish": transitions.finish(job, 1, {}, {}),
    }
    assert len(rows(engine, ends[end])) == 1
    left = rows(engine, text("SELECT id FROM artifacts"))
    assert left == ([("art_1",)] if end == "finish" else [])
