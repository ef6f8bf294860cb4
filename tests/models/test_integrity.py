"""Every contradiction that the doctor looks for is found where it is, and nowhere else."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import Engine, text

from models import transitions
from models.queries import integrity
from tests.models.factories import add_job, add_tenant

GRACE = timedelta(minutes=2)
LEASE = timedelta(seconds=60)


@pytest.fixture
def jobs(engine: Engine) -> dict[str, str]:
    """A job in every kind of state, all of them in order."""
    made = {}
    with engine.begin() as connection:
        tenant = add_tenant(connection)
        for state in ("succeeded", "cancelled", "deleted", "running", "queued"):
            made[state] = job = add_job(connection, tenant)
            if state in {"succeeded", "deleted", "running"}:
                connection.execute(transitions.claim("w", ["cpu"], LEASE))
            if state in {"succeeded", "deleted"}:
                connection.execute(transitions.finish(job, 1, {}, {}))
            if state == "cancelled":
                connection.execute(transitions.cancel(tenant, job))
            if state == "deleted":
                connection.execute(transitions.soft_delete(tenant, job))
                for table in ("job_events", "job_attempts"):
                    connection.execute(text(f"DELETE FROM {table} WHERE job_id = '{job}'"))
    return made


def found(engine: Engine) -> dict[str, list[str]]:
    with engine.connect() as connection:
        answers = {
            subject: list(connection.execute(statement).scalars())
            for subject, statement in integrity.contradictions(GRACE).items()
        }
    return {subject: ids for subject, ids in answers.items() if ids}


def test_there_is_none_in_an_orderly_house(engine: Engine, jobs: dict[str, str]) -> None:
    assert found(engine) == {}


@pytest.mark.parametrize(
    ("subject", "state", "statement"),
    [
        ("leases in the past", "running", "UPDATE jobs SET lease_until = now() - interval '1 h'"),
        (
            "queued, not dispatched",
            "queued",
            "UPDATE jobs SET rung_at = NULL, not_before = now() - interval '1 h'",
        ),
        (
            "past their queue timeout",
            "queued",
            "UPDATE jobs SET queue_deadline = now() - interval '1 h'",
        ),
        ("events with gaps", "succeeded", "DELETE FROM job_events WHERE seq = 2"),
        ("events with gaps", "running", "DELETE FROM job_events WHERE seq = 2"),
        (
            "not one terminal event",
            "cancelled",
            "UPDATE job_events SET terminal = false WHERE terminal",
        ),
        ("not one terminal event", "queued", "UPDATE job_events SET terminal = true"),
        ("attempts without an end", "succeeded", "UPDATE job_attempts SET ended_at = NULL"),
        ("attempts without an end", "running", "UPDATE job_attempts SET ended_at = now()"),
        (
            "files of lost attempts",
            "cancelled",
            "INSERT INTO artifacts SELECT 'art_1', tenant_id, id, 0, '', '', 0, '', '' FROM jobs",
        ),
        (
            "files of lost attempts",
            "running",
            "INSERT INTO artifacts SELECT 'art_1', tenant_id, id, 7, '', '', 0, '', '' FROM jobs",
        ),
    ],
)
def test_each_is_found(
    engine: Engine, jobs: dict[str, str], subject: str, state: str, statement: str
) -> None:
    if "FROM jobs" not in statement and "UPDATE jobs" not in statement:
        joint = "AND" if "WHERE" in statement else "WHERE"
        statement += f" {joint} job_id = '{jobs[state]}'"
    else:
        statement += f" WHERE id = '{jobs[state]}'"
    with engine.begin() as connection:
        assert connection.execute(text(statement)).rowcount == 1
    assert found(engine) == {subject: [jobs[state]]}


def test_bytes_of_running_jobs_and_bytes_with_a_row_are_no_orphans(
    engine: Engine, jobs: dict[str, str]
) -> None:
    artifact = {
        "id": "art_1",
        "name": "a",
        "media_type": "t",
        "size": 1,
        "sha256": "0",
        "storage_key": f"jobs/{jobs['running']}/1/art_1",
    }
    kept = [artifact["storage_key"], f"jobs/{jobs['running']}/1/art_unknown.part"]
    lost = [
        f"jobs/{jobs['succeeded']}/1/art_2",
        f"jobs/{jobs['deleted']}/1/art_3",
        "jobs/none/1/art_4",
        "files/ten_1/file_1",
        "files/ten_1/file_2.part",
        "stray",
    ]
    with engine.begin() as connection:
        connection.execute(transitions.add_artifact(jobs["running"], 1, artifact))
        connection.execute(transitions.finish(jobs["running"], 1, {}, {}))
        kept = kept[:1]
        orphans = connection.execute(integrity.orphans([*kept, *lost])).scalars().all()
        assert sorted(orphans) == sorted(lost)
        referred = connection.execute(integrity.referred_keys()).scalars().all()
        assert referred == [artifact["storage_key"]]
