"""Jobs through the executor over real Postgres: every way a runner can end."""

from __future__ import annotations

import tempfile
import threading
import time
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from datassay import Client
from datassay.errors import Conflict, InvalidSpec
from psycopg import OperationalError
from sqlalchemy import Engine, event, text
from sqlalchemy.exc import DBAPIError

from infra.settings import Settings
from models import queries, transitions
from models.queries import integrity
from tests.services import Workplace, client
from workers.sweeper import Sweeper

KINDS = ["toy", "toy-isolated"]


def submit(api: Client, kind: str, **spec: Any) -> Any:
    options = {k: spec.pop(k) for k in ("max_attempts", "timeout") if k in spec}
    return api.jobs.create(kind, spec, **options)


@pytest.mark.parametrize("kind", KINDS)
def test_a_job_succeeds_with_events_and_artifact(
    api: Client, workplace: Workplace, kind: str
) -> None:
    job = submit(api, kind, steps=3, artifact="hello")
    assert workplace.run() == 1
    job.refresh()
    assert (job.raw_state, job.attempt, job.error) == ("SUCCEEDED", 1, None)
    assert job.progress is not None
    assert (job.progress.current, job.progress.total) == (3, 3)
    assert job.result().data == {"steps": 3, "text": "from 0"}
    kinds = [(event.kind, event.data.get("state")) for event in api.jobs.events(job.id)]
    assert kinds[:2] == [("state", "QUEUED"), ("state", "RUNNING")]
    assert kinds[-1] == ("state", "SUCCEEDED")
    assert ("log", None) in kinds
    (artifact,) = job.artifacts()
    assert (artifact.record.name, artifact.record.size) == ("notes.txt", 5)


@pytest.mark.parametrize("steps", [1, 3])
def test_the_last_progress_is_there_however_slow_the_heartbeat(
    api: Client, workplace: Workplace, steps: int
) -> None:
    """The heartbeat has taken the news and is not done when the runner returns."""

    def slow(*_: Any) -> None:
        if threading.current_thread().name.startswith("lease-"):
            time.sleep(0.5)

    event.listen(workplace.executor._sessions.kw["bind"], "before_cursor_execute", slow)
    job = submit(api, "toy", steps=steps, step_seconds=0.05)
    workplace.run()
    assert job.refresh().raw_state == "SUCCEEDED"
    assert job.progress is not None
    assert job.progress.current == steps
    told = [e.data["current"] for e in api.jobs.events(job.id) if e.kind == "progress"]
    assert told == sorted(told)


@pytest.mark.parametrize("kind", KINDS)
def test_jobs_of_a_tenant_remember_for_one_another(
    api: Client, workplace: Workplace, engine: Engine, kind: str
) -> None:
    first, second = (submit(api, kind, action="remember") for _ in range(2))
    assert workplace.run() == 2
    found = [job.refresh().result().data for job in (first, second)]
    assert found[0] == {"steps": 0, "text": ""}
    assert found[1]["steps"] == 1
    assert found[1]["text"].startswith(f"of {first.id}-"), "what is there stays"
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO tenants (id, name) VALUES ('ten_other', 'other')"))
        connection.execute(text("UPDATE cache_entries SET tenant_id = 'ten_other'"))
    stranger = submit(api, kind, action="remember")
    workplace.run()
    assert stranger.refresh().result().data["steps"] == 0, "never across tenants"


@pytest.mark.parametrize("kind", KINDS)
def test_a_user_error_fails_once_with_its_details(
    api: Client, workplace: Workplace, kind: str
) -> None:
    job = submit(api, kind, action="fail", artifact="garbage")
    workplace.run()
    job.refresh()
    assert (job.raw_state, job.attempt) == ("FAILED", 1)
    assert job.error is not None
    assert (job.error.code, job.error.origin, job.error.retryable) == (
        "input_invalid",
        "user",
        False,
    )
    assert job.error.details == {"rows": [3]}
    assert list(job.artifacts()) == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_crash_is_tried_again_and_keeps_its_trace_from_clients(
    api: Client, workplace: Workplace, engine: Engine, kind: str
) -> None:
    job = submit(api, kind, action="crash", max_attempts=2)
    assert workplace.run() == 2
    job.refresh()
    assert (job.raw_state, job.attempt) == ("FAILED", 2)
    assert job.error is not None
    assert job.error.code == "internal"
    assert "Traceback" not in job.error.message
    attempts = list(job.attempts())
    assert [a.outcome for a in attempts] == ["retried", "failed"]
    with engine.connect() as connection:
        traces = connection.execute(text("SELECT trace FROM job_attempts")).scalars().all()
    assert all("RuntimeError: unexpected" in trace for trace in traces)


@pytest.mark.parametrize("kind", KINDS)
def test_a_runner_finds_the_declared_models(api: Client, workplace: Workplace, kind: str) -> None:
    job = submit(api, kind, action="find", model="tiny")
    workplace.run()
    assert job.refresh().result()["text"] == "/models/tiny"


@pytest.mark.parametrize(
    ("action", "word"),
    [("exit", "exit code 7"), ("segfault", "SIGSEGV"), ("suicide", "SIGKILL")],
)
def test_the_death_of_an_isolated_runner_is_an_answer(
    api: Client, workplace: Workplace, action: str, word: str
) -> None:
    doomed = submit(api, "toy-isolated", action=action, max_attempts=1)
    after = submit(api, "toy")
    assert workplace.run() == 2
    assert doomed.refresh().error.code == "worker_lost"
    assert word in doomed.error.message
    assert after.refresh().raw_state == "SUCCEEDED"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("action", "code"),
    [("bad_result", "internal"), ("huge_result", "too_large"), ("nan", "numerical_failure")],
)
def test_a_wrong_result_is_not_stored(
    api: Client, workplace: Workplace, kind: str, action: str, code: str
) -> None:
    job = submit(api, kind, action=action)
    workplace.run()
    job.refresh()
    assert (job.raw_state, job.attempt) == ("FAILED", 1)
    assert job.error is not None
    assert job.error.code == code


@pytest.mark.parametrize("kind", KINDS)
def test_timeout(api: Client, workplace: Workplace, kind: str) -> None:
    job = submit(api, kind, steps=1000, step_seconds=0.02, timeout=1.5)
    workplace.run()
    job.refresh()
    assert (job.raw_state, job.attempt) == ("FAILED", 1)
    assert job.error is not None
    assert job.error.code == "timeout"


@pytest.mark.parametrize("kind", KINDS)
def test_cancel_while_running(api: Client, workplace: Workplace, kind: str) -> None:
    job = submit(api, kind, steps=1000, step_seconds=0.02)
    with workplace.running():
        wait_for_state(job, "RUNNING")
        job.cancel()
        assert job.raw_state == "CANCELLING"
    job.refresh()
    assert job.raw_state == "CANCELLED"
    assert job.error is None


def test_a_cancel_does_not_wait_for_the_heartbeat(
    api: Client, service_settings: Settings, engine: Engine
) -> None:
    rare = {"heartbeat": timedelta(seconds=20), "lease": timedelta(seconds=60)}
    with closing(Workplace(service_settings.model_copy(update=rare))) as place:
        job = submit(api, "toy-isolated", action="stubborn", steps=1, step_seconds=60)
        with place.running():
            wait_for_state(job, "RUNNING")
            time.sleep(1)
            began = time.monotonic()
            job.cancel()
        assert time.monotonic() - began < 10
    assert job.refresh().raw_state == "CANCELLED"


def test_a_stubborn_isolated_runner_is_killed(api: Client, workplace: Workplace) -> None:
    job = submit(api, "toy-isolated", action="stubborn", steps=1, step_seconds=60, timeout=1)
    began = time.monotonic()
    workplace.run()
    assert time.monotonic() - began < 20
    assert job.refresh().error.code == "timeout"


@pytest.mark.parametrize("kind", KINDS)
def test_shutdown_hands_the_job_back(
    api: Client, workplace: Workplace, service_settings: Settings, kind: str
) -> None:
    job = submit(api, kind, steps=100, step_seconds=0.02, max_attempts=1)
    with workplace.running():
        wait_for_state(job, "RUNNING")
        workplace.shutdown.begin()
    assert job.refresh().raw_state == "QUEUED"
    other = Workplace(service_settings)
    assert other.run() == 1
    other.close()
    job.refresh()
    assert (job.raw_state, job.attempt) == ("SUCCEEDED", 2)
    assert [a.outcome for a in job.attempts()] == ["released", "succeeded"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_zombie_changes_nothing(
    api: Client, workplace: Workplace, engine: Engine, kind: str
) -> None:
    job = submit(api, kind, steps=100, step_seconds=0.02)
    with workplace.running():
        wait_for_state(job, "RUNNING")
        with engine.begin() as connection:  # as the sweeper would, were the worker frozen
            connection.execute(text("UPDATE jobs SET lease_until = now() - interval '1 s'"))
            connection.execute(transitions.rescue_stalled(10, workplace.settings.retry_backoff))
            stolen = connection.execute(
                transitions.claim("other", ["cpu"], workplace.settings.lease)
            ).one()
    assert stolen.attempt == 2
    job.refresh()
    assert (job.raw_state, job.attempt) == ("RUNNING", 2)
    with engine.begin() as connection:
        connection.execute(transitions.finish(job.id, 2, {"steps": 9, "text": ""}, {}))
    assert job.refresh().result().data["steps"] == 9
    assert [a.outcome for a in job.attempts()] == ["lost", "succeeded"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_second_attempt_goes_on_from_the_checkpoint(
    api: Client, workplace: Workplace, kind: str
) -> None:
    job = submit(api, kind, action="resume", steps=6)
    assert workplace.run() == 2
    assert job.refresh().result().data == {"steps": 6, "text": "from 3"}
    # Each file replaced the one before; the last goes with the next clean-up.
    (kept,) = (workplace.settings_storage() / "jobs" / job.id / "kept").iterdir()
    assert kept.read_text() == "step 6"


def test_kept_files_go_when_the_job_has_ended(
    api: Client, workplace: Workplace, service_settings: Settings
) -> None:
    ended, waiting = (submit(api, "toy", action="resume", steps=6) for _ in range(2))
    for _ in range(3):  # the first fails half-way, and comes again before the second
        assert workplace.executor.run_next()
    assert (ended.refresh().raw_state, waiting.refresh().raw_state) == ("SUCCEEDED", "QUEUED")
    assert len(kept_files(workplace, ended.id)) == 1
    Sweeper(service_settings, workplace.executor._sessions, None).clean()  # type: ignore[arg-type]
    assert not kept_files(workplace, ended.id)
    assert len(kept_files(workplace, waiting.id) & known(workplace)) == 1
    workplace.run()
    assert waiting.refresh().result()["text"] == "from 3"


def kept_files(workplace: Workplace, job: str) -> set[str]:
    storage = workplace.settings_storage()
    return {str(path.relative_to(storage)) for path in storage.glob(f"jobs/{job}/kept/*")}


def known(workplace: Workplace) -> set[str]:
    """What the doctor knows of."""
    with workplace.executor._sessions.begin() as session:
        return set(session.execute(integrity.referred_keys()).scalars())


@pytest.mark.parametrize("kind", KINDS)
def test_inputs(api: Client, workplace: Workplace, tmp_path: Any, kind: str) -> None:
    path = tmp_path / "input.txt"
    path.write_text("content")
    file = api.files.upload(path)
    good = submit(api, kind, action="read", input=file.id)
    workplace.run()
    assert good.refresh().result().data["text"] == "content"
    stored = next(workplace.settings_storage().rglob(file.id))
    stored.write_text("changed")
    changed = submit(api, kind, action="read", input=file.id)
    workplace.run()
    assert changed.refresh().error.code == "input_changed"
    stored.unlink()
    gone = submit(api, kind, action="read", input=file.id)
    workplace.run()
    assert gone.refresh().error.code == "input_unreadable"


@pytest.mark.parametrize("kind", KINDS)
def test_an_artifact_of_one_job_is_the_input_of_another(
    api: Client, workplace: Workplace, gateway_url: str, service_settings: Settings, kind: str
) -> None:
    first = submit(api, kind, artifact="from the first")
    workplace.run()
    (artifact,) = first.artifacts()
    second = submit(api, kind, action="read", input=artifact.record.id)
    workplace.run()
    assert second.refresh().result().data["text"] == "from the first"
    with (
        client(gateway_url, service_settings, tenant="other") as stranger,
        pytest.raises(InvalidSpec, match="there is no file art_"),
    ):
        submit(stranger, kind, action="read", input=artifact.record.id)
    third = submit(api, kind, action="read", input=artifact.record.id, steps=2)
    with pytest.raises(Conflict, match=f"{third.id} has not ended and needs {artifact.record.id}"):
        api.jobs.delete(first.id)
    workplace.run()
    assert third.refresh().succeeded
    api.jobs.delete(first.id)


def test_a_job_whose_artifact_another_needs_does_not_expire(
    api: Client, workplace: Workplace, engine: Engine
) -> None:
    first = submit(api, "toy", artifact="needed")
    workplace.run()
    (artifact,) = first.artifacts()
    user = submit(api, "toy", action="read", input=artifact.record.id)
    expired = f"UPDATE jobs SET expires_at = now() - interval '1 s' WHERE id = '{first.id}'"
    with engine.begin() as connection:
        connection.execute(text(expired))
        assert connection.execute(queries.jobs.expired(10)).scalars().all() == []
    workplace.run()
    assert user.refresh().succeeded
    with engine.begin() as connection:
        assert connection.execute(queries.jobs.expired(10)).scalars().all() == [first.id]


def test_the_lease_outlives_a_database_outage(
    api: Client, workplace: Workplace, engine: Engine
) -> None:
    job = submit(api, "toy", steps=40, step_seconds=0.02)
    stop = threading.Event()

    def sever() -> None:
        while not stop.wait(0.1):
            with engine.begin() as connection:
                connection.execute(
                    text(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                        "WHERE application_name = 'test-worker'"
                    )
                )

    with workplace.running():
        wait_for_state(job, "RUNNING")
        thread = threading.Thread(target=sever)
        thread.start()
        time.sleep(0.5)
        stop.set()
        thread.join()
    job.refresh()
    assert (job.raw_state, job.attempt) == ("SUCCEEDED", 1)


def test_a_commit_whose_answer_was_lost_keeps_the_files(
    api: Client, workplace: Workplace, engine: Engine
) -> None:
    job = submit(api, "toy", artifact="hello")
    lost = []

    def lose_the_answer(connection: Any) -> None:
        if not lost and "SUCCEEDED" in connection.info.get("last", ""):
            connection.connection.driver_connection.commit()
            lost.append(True)
            raise sever(connection)

    def note(connection: Any, cursor: Any, statement: str, values: Any, *_: Any) -> None:
        connection.info["last"] = f"{statement} {values}"

    worker_engine = workplace.executor._sessions.kw["bind"]
    event.listen(worker_engine, "after_cursor_execute", note)
    event.listen(worker_engine, "commit", lose_the_answer)
    workplace.run()
    assert lost, "the commit went well and its answer did not come"
    assert job.refresh().raw_state == "SUCCEEDED"
    (artifact,) = job.artifacts()
    assert b"".join(artifact.iter_bytes()) == b"hello"


def sever(connection: Any) -> Exception:
    """What psycopg raises when the server goes away."""
    connection.invalidate()
    error = OperationalError("server closed the connection unexpectedly")
    return DBAPIError("COMMIT", {}, error, connection_invalidated=True)


@pytest.mark.parametrize("kind", KINDS)
def test_a_runner_does_not_notice_a_database_outage(
    api: Client, workplace: Workplace, kind: str
) -> None:
    job = submit(api, kind, artifact="hello", max_attempts=1)
    refused = []

    def refuse(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        if "INSERT INTO artifacts" in statement and len(refused) < 2:
            refused.append(statement)
            raise sever(connection)

    event.listen(workplace.executor._sessions.kw["bind"], "before_cursor_execute", refuse)
    workplace.run()
    assert len(refused) == 2
    assert (job.refresh().raw_state, job.attempt) == ("SUCCEEDED", 1)


@pytest.mark.parametrize("kind", KINDS)
def test_memory_beyond_the_limit(
    api: Client, service_settings: Settings, gateway_url: str, kind: str
) -> None:
    limited = service_settings.model_copy(update={"isolated_memory_bytes": 3 << 30})
    place = Workplace(limited)
    # In a thread there is no limit but the machine's, which no machine has.
    size = 64 if kind == "toy-isolated" else 1 << 35
    greedy = submit(api, kind, action="hoard", mebibytes=size, max_attempts=2)
    with client(gateway_url, service_settings, tenant="blue") as other:
        after = submit(other, "toy")
        assert place.run() == 3
        assert greedy.refresh().error.code == "out_of_memory"
        assert [a.outcome for a in greedy.attempts()] == ["retried", "failed"]
        assert after.refresh().raw_state == "SUCCEEDED"
    place.close()


def test_an_isolated_runner_that_holds_the_gil_is_killed(api: Client, workplace: Workplace) -> None:
    job = submit(api, "toy-isolated", action="hold", timeout=1)
    after = submit(api, "toy")
    assert workplace.run() == 2
    assert job.refresh().error.code == "timeout"
    assert after.refresh().raw_state == "SUCCEEDED"


def test_a_babbler_does_not_fill_the_disk(api: Client, workplace: Workplace) -> None:
    job = submit(api, "toy-isolated", action="babble")
    workplace.run()
    assert 0 < job.refresh().result().data["steps"] < 10 << 20, "of 200 MiB"


def test_a_stuck_worker_ends_even_without_its_database(
    api: Client, service_settings: Settings, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    hasty = {"shutdown_grace": timedelta(seconds=0.5)}
    submit(api, "toy", action="stubborn", step_seconds=3, timeout=0.1)
    ended = threading.Event()
    monkeypatch.setattr("workers.executor.os._exit", lambda code: ended.set())

    def refuse(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        if threading.current_thread().name.startswith("lease-") and "failures" in statement:
            raise sever(connection)

    with closing(Workplace(service_settings.model_copy(update=hasty))) as place:
        event.listen(place.executor._sessions.kw["bind"], "before_cursor_execute", refuse)
        with place.running():
            assert ended.wait(60)


def test_nothing_is_left_on_the_disk(
    api: Client, workplace: Workplace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    place = Workplace(workplace.settings)
    for action in ("succeed", "fail", "exit"):
        submit(api, "toy-isolated", action=action, artifact="x", max_attempts=1)
    assert place.run() == 3
    ((work,),) = [list(tmp_path.iterdir())]
    (own,) = work.iterdir()
    assert list(own.iterdir()) == []
    place.close()
    assert list(work.iterdir()) == []


def wait_for_state(job: Any, state: str, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while job.refresh().raw_state != state:
        assert time.monotonic() < deadline, f"{job.raw_state}, not {state}"
        time.sleep(0.02)
