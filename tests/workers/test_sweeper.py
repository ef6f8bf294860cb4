"""What the sweeper repairs and what it throws away."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from datassay import Client
from sqlalchemy import Engine, text

from infra.broker import Broker, create_celery
from infra.settings import Settings
from infra.storage import Storage
from models import queries, transitions
from models.database import sync_sessions
from tests.models.factories import add_tenant
from tests.services import Workplace
from tests.workers.conftest import NotedBroker
from workers.sweeper import Sweeper


def run_sql(engine: Engine, statement: str) -> list[Any]:
    with engine.begin() as connection:
        result = connection.execute(text(statement))
        return list(result.all()) if result.returns_rows else []


def test_an_expired_lease_goes_back_to_the_queue_then_fails(
    api: Client, sweeper: Sweeper, engine: Engine
) -> None:
    job = api.jobs.create("toy", {}, max_attempts=2)
    for expected in ("QUEUED", "FAILED"):
        with engine.begin() as connection:
            connection.execute(transitions.claim("w", ["cpu"], timedelta(seconds=-1)))
        sweeper.sweep()
        assert job.refresh().raw_state == expected
    assert job.error is not None
    assert (job.error.code, job.error.origin) == ("worker_lost", "system")
    assert [a.outcome for a in job.attempts()] == ["lost", "lost"]


def test_a_cancelled_job_of_a_dead_worker_is_cancelled(
    api: Client, sweeper: Sweeper, engine: Engine
) -> None:
    job = api.jobs.create("toy", {})
    with engine.begin() as connection:
        connection.execute(transitions.claim("w", ["cpu"], timedelta(seconds=-1)))
    job.cancel()
    sweeper.sweep()
    assert job.refresh().raw_state == "CANCELLED"


def test_queue_timeout(api: Client, sweeper: Sweeper, engine: Engine) -> None:
    late = api.jobs.create("toy", {}, queue_timeout=60)
    patient = api.jobs.create("toy", {})
    run_sql(engine, "UPDATE jobs SET queue_deadline = queue_deadline - interval '61 s'")
    sweeper.sweep()
    assert late.refresh().raw_state == "EXPIRED"
    assert patient.refresh().raw_state == "QUEUED"


def test_a_missed_bell_is_rung_and_one_that_was_heard_is_not(
    api: Client, sweeper: Sweeper, engine: Engine, broker: NotedBroker
) -> None:
    job = api.jobs.create("toy", {})
    sweeper.sweep()
    assert broker.published == []
    run_sql(engine, "UPDATE jobs SET rung_at = NULL")
    broker.reachable = False
    sweeper.sweep()
    assert run_sql(engine, "SELECT rung_at FROM jobs") == [(None,)]
    broker.reachable = True
    sweeper.sweep()
    sweeper.sweep()
    assert broker.published == [(job.id, "cpu")]
    run_sql(engine, "UPDATE jobs SET rung_at = now() - interval '31 s'")
    sweeper.sweep()
    assert len(broker.published) == 2


def test_two_sweepers_share_the_work(
    api: Client, sweeper: Sweeper, engine: Engine, service_settings: Settings, broker: NotedBroker
) -> None:
    other = Sweeper(service_settings, sync_sessions(engine), broker)  # type: ignore[arg-type]
    for _ in range(5):
        api.jobs.create("toy", {})
    run_sql(engine, "UPDATE jobs SET rung_at = NULL")
    sweeper.sweep()
    other.sweep()
    assert len(broker.published) == len(set(broker.published)) == 5


def test_retention_leaves_a_tombstone_and_no_bytes(
    api: Client, sweeper: Sweeper, engine: Engine, workplace: Workplace, tmp_path: Path
) -> None:
    path = tmp_path / "input"
    path.write_text("x")
    used, unused = api.files.upload(path), api.files.upload(path)
    job = api.jobs.create("toy", {"artifact": "x"}, expires_after=3600)
    waiting = api.jobs.create("toy", {"action": "read", "input": used.id}, priority=-1)
    assert workplace.executor.run_next()
    (artifact,) = job.artifacts()
    run_sql(engine, "UPDATE jobs SET expires_at = now() - interval '1 s' WHERE state = 'SUCCEEDED'")
    run_sql(engine, "UPDATE files SET last_used_at = now() - interval '31 days'")
    sweeper.clean()
    with pytest.raises(Exception, match="no job"):
        api.jobs.get(job.id)
    names = {p.name for p in workplace.settings_storage().rglob("*") if p.is_file()}
    assert artifact.record.id not in names
    assert unused.id not in names
    assert used.id in names, "an unfinished job needs it"
    assert waiting.refresh().raw_state == "QUEUED"
    assert run_sql(engine, f"SELECT count(*) FROM job_events WHERE job_id = '{job.id}'") == [(0,)]


def test_bytes_without_a_row_are_swept_up(
    api: Client, sweeper: Sweeper, engine: Engine, workplace: Workplace
) -> None:
    done = api.jobs.create("toy", {"artifact": "x"})
    assert workplace.executor.run_next()
    running = api.jobs.create("toy", {})
    with engine.begin() as connection:
        connection.execute(transitions.claim("w", ["cpu"], timedelta(minutes=1)))
    kept, swept = workplace.settings_storage() / "jobs", workplace.settings_storage() / "files"
    killed = kept / done.id / "7" / "art_of_a_killed_worker"
    unfinished = kept / running.id / "1" / "art_without_a_row_yet"
    upload = swept / "ten_1" / "file_of_a_killed_gateway.part"
    young = swept / "ten_1" / "file_that_is_coming_in"
    for path in (killed, unfinished, upload, young):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    for path in kept.rglob("*"):
        os.utime(path, (0, 0))
    os.utime(upload, (0, 0))
    sweeper.tidy()
    assert not killed.exists()
    assert not upload.exists()
    assert unfinished.exists(), "its attempt may still record it"
    assert young.exists()
    (artifact,) = done.artifacts()
    assert b"".join(artifact.iter_bytes()) == b"x"


def bytes_of(workplace: Workplace, job: str) -> list[Path]:
    folder = workplace.settings_storage() / "jobs" / job
    return [path for path in folder.rglob("*") if path.is_file()]


def test_a_disk_that_refuses_to_delete_costs_no_purge(
    api: Client,
    sweeper: Sweeper,
    engine: Engine,
    workplace: Workplace,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    jobs = [api.jobs.create("toy", {"artifact": "x"}) for _ in range(2)]
    assert workplace.run() == 2
    run_sql(engine, "UPDATE jobs SET expires_at = now() - interval '1 s'")

    def refuse(self: Storage, key: str) -> None:
        raise PermissionError(key)

    with monkeypatch.context() as patch:
        patch.setattr(Storage, "delete", refuse)
        sweeper.clean()
    for job in jobs:
        with pytest.raises(Exception, match="no job"):
            api.jobs.get(job.id)
    bytes_left = [p for job in jobs for p in bytes_of(workplace, job.id)]
    assert len(bytes_left) == 2
    for path in bytes_left:
        os.utime(path, (0, 0))
    sweeper.tidy()
    assert not any(path.exists() for path in bytes_left)


def test_audit_records_go_when_they_expire_and_not_before(
    api: Client, sweeper: Sweeper, engine: Engine
) -> None:
    api.jobs.create("toy", {})
    insert = (
        "INSERT INTO audit_records (tenant_id, action, object_id, expires_at) "
        "SELECT id, 'old', id, now() - interval '1 s' FROM tenants"
    )
    run_sql(engine, insert)
    sweeper.clean()
    actions = run_sql(engine, "SELECT action FROM audit_records ORDER BY id")
    assert actions == [("key.create",), ("job.create",)]
    days = "SELECT DISTINCT extract(day FROM expires_at - created_at) FROM audit_records"
    assert run_sql(engine, days) == [(400,)]


def test_a_purge_that_was_interrupted_is_taken_up_again(
    api: Client, sweeper: Sweeper, engine: Engine, workplace: Workplace
) -> None:
    job = api.jobs.create("toy", {"artifact": "x"})
    workplace.run()
    (artifact,) = job.artifacts()
    with engine.begin() as connection:  # a gateway that died right after the tombstone
        tenant = run_sql(engine, "SELECT id FROM tenants")[0][0]
        connection.execute(transitions.soft_delete(tenant, job.id))
    sweeper.clean()
    names = {p.name for p in workplace.settings_storage().rglob("*") if p.is_file()}
    assert artifact.record.id not in names
    purged = "SELECT purged_at IS NOT NULL, (SELECT count(*) FROM artifacts) FROM jobs"
    assert run_sql(engine, purged) == [(True, 0)]


def test_idempotency_keys_are_forgotten_after_a_day(
    api: Client, sweeper: Sweeper, engine: Engine
) -> None:
    first = api.jobs.create("toy", {}, idempotency_key="k")
    run_sql(engine, "UPDATE idempotency_keys SET created_at = now() - interval '25 hours'")
    sweeper.clean()
    assert api.jobs.create("toy", {}, idempotency_key="k").id != first.id


def test_the_cache_keeps_what_was_used_last(
    service_settings: Settings, sweeper: Sweeper, engine: Engine
) -> None:
    with engine.begin() as connection:
        tenant = add_tenant(connection)
        connection.execute(queries.cache.put(tenant, {bytes([k]): b"x" for k in range(6)}))
        age = "now() - get_byte(key, 0) * interval '2 hours'"
        connection.execute(text(f"UPDATE cache_entries SET used_at = {age}"))
        connection.execute(queries.cache.touch(tenant, [b"\x05"]))
    sweeper._settings = service_settings.model_copy(update={"cache_entries": 3})
    sweeper.clean()
    left = run_sql(engine, "SELECT get_byte(key, 0) FROM cache_entries ORDER BY 1")
    assert left == [(0,), (1,), (5,)]
    sweeper.clean()
    assert len(run_sql(engine, "SELECT 1 FROM cache_entries")) == 3


def test_the_real_broker(settings: Settings) -> None:
    broker = Broker(create_celery(settings))
    assert broker.is_reachable()
    assert broker.publish("job_x", "cpu")
    broker.close()
    away = settings.model_copy(
        update={"broker_url": type(settings.broker_url)("redis+socket:///nowhere")}
    )
    silent = Broker(create_celery(away))
    assert not silent.is_reachable()
    assert not silent.publish("job_x", "cpu")
    silent.close()
