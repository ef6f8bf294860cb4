"""Jobs of parts through executors over real Postgres."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from datassay import Client
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from infra.settings import Settings
from models import queries, transitions
from tests import services
from tests.app import raw
from tests.models.test_state_machine import part
from tests.services import Workplace
from tests.workers.test_sweeper import run_sql
from workers.sweeper import Sweeper


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "journal"


@pytest.fixture
def other(service_settings: Settings) -> Iterator[Workplace]:
    place = Workplace(service_settings)
    yield place
    place.close()


@contextmanager
def at_work(*places: Workplace) -> Iterator[None]:
    """Several executors that look for jobs until the block has ended."""
    stop = threading.Event()

    def work(place: Workplace) -> None:
        while not stop.is_set():
            with suppress(DBAPIError):  # as a worker does: it looks again later
                place.run()
            time.sleep(0.01)

    threads = [threading.Thread(target=work, args=(place,)) for place in places]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(timeout=60)
            assert not thread.is_alive(), "an executor is stuck"


def parts(journal: Path, names: str, **changes: Any) -> list[dict[str, Any]]:
    return [{"name": name, "journal": str(journal), **changes} for name in names]


def lines(journal: Path, what: str) -> list[str]:
    """Names in the order in which they began, or ended."""
    found = [line.split() for line in journal.read_text().splitlines()] if journal.exists() else []
    return [name for name, event in found if event == what]


def submit(api: Client, wanted: list[dict[str, Any]], kind: str = "toy-parent", **more: Any) -> Any:
    options = {k: more.pop(k) for k in ("max_attempts", "timeout", "queue_timeout") if k in more}
    return api.jobs.create(kind, {"parts": wanted, **more}, **options)


def wait_for(condition: Any, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("whole", "part"),
    [
        ("toy-parent", "toy-part"),
        ("toy-parent-isolated", "toy-part"),
        ("toy-parent", "toy-part-isolated"),
    ],
)
def test_one_worker_alone_runs_a_job_and_its_parts(
    api: Client, workplace: Workplace, journal: Path, whole: str, part: str
) -> None:
    job = submit(api, parts(journal, "cab"), whole, part_type=part)
    assert workplace.run() == 1, "the parts are run within their parent"
    job.refresh()
    assert (job.raw_state, job.attempt, job.error) == ("SUCCEEDED", 1, None)
    assert job.result().data == {
        "said": ["c", "a", "b"],
        "order": [0, 1, 2],
        "reused": 0,
        "opened": ["c", "a", "b"],
    }
    assert lines(journal, "begins") == ["c", "a", "b"], "in the order of the parent"
    assert job.children is not None
    assert (job.children.total, job.children.succeeded) == (3, 3)
    assert [j.id for j in api.jobs.list()] == [job.id], "parts are not listed"
    children = list(api.jobs.list(parent=job.id))
    assert {(c.type, c.raw_state, c.attempt) for c in children} == {(part, "SUCCEEDED", 1)}
    assert api.jobs.get(children[0].id).result().data["text"] in "abc"


def test_a_second_job_runs_only_what_is_new_to_its_tenant(
    api: Client, workplace: Workplace, journal: Path, gateway_url: str, service_settings: Settings
) -> None:
    submit(api, parts(journal, "ab"))
    more = submit(api, parts(journal, "acab"))
    workplace.run()
    assert sorted(lines(journal, "begins")) == ["a", "b", "c"]
    result = more.refresh().result().data
    assert result["said"] == ["a", "c", "a", "b"]
    assert result["reused"] == 3, "two of them for the same part"
    with services.client(gateway_url, service_settings, "stranger") as stranger:
        submit(stranger, parts(journal, "a"))
        workplace.run()
    assert sorted(lines(journal, "begins")) == ["a", "a", "b", "c"]


def test_inputs_count_by_their_bytes(
    api: Client, workplace: Workplace, journal: Path, tmp_path: Path
) -> None:
    refs = []
    for content in ("x", "x", "y"):
        (tmp_path / "input").write_text(content)
        refs.append(api.files.upload(tmp_path / "input").id)
    jobs = [submit(api, parts(journal, "a", input=ref)) for ref in refs]
    workplace.run()
    assert [job.refresh().result()["said"] for job in jobs] == [["a x"], ["a x"], ["a y"]]
    assert lines(journal, "begins") == ["a", "a"]


@pytest.mark.parametrize("kind", ["toy-parent", "toy-parent-isolated"])
def test_an_artifact_is_an_input_of_children_too(
    api: Client, workplace: Workplace, journal: Path, tmp_path: Path, kind: str
) -> None:
    maker = api.jobs.create("toy", {"artifact": "from a job"})
    workplace.run()
    [artifact] = maker.refresh().artifacts()
    (tmp_path / "input").write_text("from a file")
    upload = api.files.upload(tmp_path / "input").id
    wanted = [{"name": "a", "input": artifact.record.id}, {"name": "b", "input": upload}]
    job = submit(api, wanted, kind)
    workplace.run()
    assert job.refresh().error is None
    assert job.result()["said"] == ["a from a job", "b from a file"]


def test_stored_inputs_are_those_of_the_tenant(
    api: Client, workplace: Workplace, gateway_url: str, service_settings: Settings, engine: Engine
) -> None:
    with services.client(gateway_url, service_settings, "stranger") as stranger:
        maker = stranger.jobs.create("toy", {"artifact": "not yours"})
        workplace.run()
        [artifact] = maker.refresh().artifacts()
        upload = stranger.files.upload(io.BytesIO(b"nor this"), name="a").id
    ids = [artifact.record.id, upload]
    with engine.begin() as connection:
        rows = connection.execute(text("SELECT name, id FROM tenants")).all()
        tenants = {row.name: row.id for row in rows}
        for tenant, expected in (("stranger", set(ids)), ("acme", set())):
            rows = connection.execute(queries.files.stored_inputs(tenants[tenant], ids)).all()
            assert {row.id for row in rows} == expected


def test_workers_share_the_parts(
    api: Client, workplace: Workplace, other: Workplace, journal: Path, tmp_path: Path
) -> None:
    (tmp_path / "met").mkdir()
    # Neither of them ends before the other has begun.
    meeting = parts(journal, "ab", action="meet", path=str(tmp_path / "met"))
    job = submit(api, [*meeting, *parts(journal, "cd")])
    with at_work(workplace, other):
        job.wait(timeout=30)
    assert job.result()["said"] == ["a", "b", "c", "d"]
    assert sorted(lines(journal, "begins")) == ["a", "b", "c", "d"]


def test_what_there_is_of_the_result_is_shown_meanwhile(
    api: Client, workplace: Workplace, journal: Path, tmp_path: Path
) -> None:
    go_on = tmp_path / "go on"
    job = submit(api, [*parts(journal, "a"), *parts(journal, "b", action="wait", path=str(go_on))])
    assert job.preview is None
    with workplace.running():
        wait_for(lambda: job.refresh().preview is not None)
        assert (job.raw_state, job.preview) == ("RUNNING", {"said": ["a"]})
        # The other part is not over before the file is there; it may not have begun.
        wait_for(lambda: job.refresh().children.running == 1)
        assert job.children.succeeded == 1
        go_on.touch()
    job.refresh()
    assert (job.raw_state, job.preview) == ("SUCCEEDED", None), "the result takes its place"


def test_a_poll_sees_how_the_parts_stand(
    api: Client, engine: Engine, gateway_url: str, service_settings: Settings, journal: Path
) -> None:
    """The parts change what the job shows and not the job: the ETag tells of both."""
    job = submit(api, parts(journal, "a"))
    with engine.begin() as connection:
        connection.execute(transitions.claim("w", ["cpu"], timedelta(minutes=1))).one()
    child = part("k")
    steps = {
        "queued": [
            transitions.submit_child(job.id, 1, child, 0),
            transitions.link_child(job.id, 1, "k", 0, reused=False),
        ],
        "running": [transitions.claim_child(job.id, "w", ["cpu"], timedelta(minutes=1))],
        "succeeded": [transitions.finish(child["id"], 1, {}, {})],
    }
    with raw.connect(gateway_url, service_settings) as http:
        path = f"/v1/jobs/{job.id}"
        etag = http.get(path).headers["etag"]
        for state, statements in steps.items():
            unchanged = {"If-None-Match": etag}
            assert [http.get(path, headers=unchanged).status_code for _ in range(2)] == [304] * 2
            with ThreadPoolExecutor(1) as pool:
                waiting = pool.submit(http.get, path, headers={**unchanged, "Prefer": "wait=10"})
                time.sleep(0.2)
                began = time.monotonic()
                with engine.begin() as connection:
                    for statement in statements:
                        connection.execute(statement).one()
                answer = waiting.result()
            assert time.monotonic() - began < 5, "they are told, not found by looking again"
            assert (answer.status_code, answer.json()["version"]) == (200, 2)
            assert answer.json()["children"][state] == 1
            etag = answer.headers["etag"]


@pytest.mark.parametrize("whole", ["toy-parent", "toy-parent-isolated"])
def test_a_failed_part_fails_the_job_and_is_named(
    api: Client, workplace: Workplace, journal: Path, whole: str
) -> None:
    wanted = [
        *parts(journal, "a"),
        *parts(journal, "b", action="fail"),
        *parts(journal, "c", resource="gpu"),
    ]
    workplace.executor._resources = ["cpu"]
    job = submit(api, wanted, whole)
    workplace.run()
    job.refresh()
    assert (job.raw_state, job.attempt) == ("FAILED", 1)
    states = {c.id: c.raw_state for c in api.jobs.list(parent=job.id)}
    assert sorted(states.values()) == ["CANCELLED", "FAILED", "SUCCEEDED"]
    failed = next(id_ for id_, state in states.items() if state == "FAILED")
    assert (job.error.code, job.error.details) == ("input_invalid", {"child": failed, "rows": [3]})
    assert f"{failed} (toy-part)" in job.error.message
    assert "it is wrong" in job.error.message


def test_a_part_has_attempts_of_its_own(api: Client, workplace: Workplace, journal: Path) -> None:
    job = submit(api, parts(journal, "a", action="crash"), max_attempts=2)
    workplace.run()
    assert lines(journal, "begins") == ["a", "a"]
    (part,) = api.jobs.list(parent=job.id)
    assert (part.raw_state, part.attempt) == ("FAILED", 2)
    assert (job.refresh().raw_state, job.attempt) == ("FAILED", 1), "it is not started again"
    again = api.jobs.retry(job.id)
    workplace.run()
    assert lines(journal, "begins") == ["a"] * 4, "a new job is a new trial"
    assert again.refresh().raw_state == "FAILED"


def test_parts_that_nobody_waits_for_are_cancelled_with_success_too(
    api: Client, workplace: Workplace, journal: Path
) -> None:
    job = submit(api, parts(journal, "abc"), enough=1)
    workplace.run()
    assert job.refresh().raw_state == "SUCCEEDED"
    assert (job.children.succeeded, job.children.cancelled) == (1, 2)
    assert lines(journal, "begins") == ["a"]


def test_a_job_whose_worker_died_finds_its_parts(
    api: Client,
    workplace: Workplace,
    other: Workplace,
    engine: Engine,
    journal: Path,
    tmp_path: Path,
) -> None:
    go_on = tmp_path / "go on"
    wanted = [
        *parts(journal, "ab"),
        *parts(journal, "c", action="wait", path=str(go_on)),
        *parts(journal, "d"),
    ]
    job = submit(api, wanted)
    with workplace.running():
        wait_for(lambda: "c" in lines(journal, "begins"))
        with engine.begin() as connection:  # as the sweeper would, were the worker dead
            whole = "UPDATE jobs SET lease_until = now() - interval '1 s' WHERE id = :id"
            connection.execute(text(whole), {"id": job.id})
            connection.execute(transitions.rescue_stalled(10, workplace.settings.retry_backoff))
        workplace.shutdown.begin()
    assert (job.refresh().raw_state, job.attempt) == ("QUEUED", 1)
    go_on.touch()
    other.run()
    job.refresh()
    assert (job.raw_state, job.attempt) == ("SUCCEEDED", 2)
    assert job.result()["said"] == ["a", "b", "c", "d"]
    assert job.result()["reused"] == 0, "they are this job's own"
    assert lines(journal, "begins") == ["a", "b", "c", "c", "d"], "only what had not ended"
    assert [a.outcome for a in job.attempts()] == ["lost", "succeeded"]


def test_a_part_whose_worker_died_runs_again_and_the_rest_does_not(
    api: Client, workplace: Workplace, engine: Engine, journal: Path, tmp_path: Path
) -> None:
    go_on = tmp_path / "go on"
    job = submit(api, [*parts(journal, "a", action="wait", path=str(go_on)), *parts(journal, "bc")])
    with workplace.running():
        wait_for(lambda: "a" in lines(journal, "begins"))
        with engine.begin() as connection:
            claim = transitions.claim("dead", ["cpu"], timedelta(seconds=-1))
            lost = connection.execute(claim).one()
            connection.execute(
                transitions.rescue_stalled(10, workplace.settings.retry_backoff)
            ).one()
        go_on.touch()
    assert lost.spec["name"] == "b"
    assert (job.refresh().raw_state, job.attempt) == ("SUCCEEDED", 1)
    assert lines(journal, "begins") == ["a", "b", "c"]
    assert [a.outcome for a in api.jobs.get(lost.id).attempts()] == ["lost", "succeeded"]


def test_the_class_of_worker_may_depend_on_the_spec(
    api: Client, workplace: Workplace, journal: Path
) -> None:
    job = submit(api, parts(journal, "a"), resource="gpu")
    workplace.executor._resources = ["cpu"]
    assert workplace.run() == 0
    workplace.executor._resources = ["gpu"]
    with workplace.running():
        wait_for(lambda: job.refresh().children is not None)
        workplace.shutdown.begin()
    assert job.refresh().children.queued == 1, "its parts want another one"


def test_cancel_takes_the_parts_that_no_other_job_needs(
    api: Client, service_settings: Settings, journal: Path, tmp_path: Path
) -> None:
    go_on = tmp_path / "go on"
    shared = parts(journal, "s", action="wait", path=str(go_on))
    # Three, for one may take the shared part before anybody takes the second job.
    with ExitStack() as stack:
        workers = [stack.enter_context(closing(Workplace(service_settings))) for _ in range(3)]
        for worker in workers:
            worker.executor._resources = ["cpu"]
        first = submit(api, [*shared, *parts(journal, "a", resource="gpu")])
        second = submit(api, [*shared, *parts(journal, "b")])
        stack.enter_context(at_work(*workers))
        wait_for(lambda: sum(j.refresh().children is not None for j in (first, second)) == 2)
        first.cancel()
        wait_for(lambda: first.refresh().raw_state == "CANCELLED")
        states = {
            api.jobs.get(child.id).spec["name"]: child.raw_state
            for child in api.jobs.list(parent=first.id)
        }
        go_on.touch()
        second.wait(timeout=30)
    assert states["a"] == "CANCELLED"
    assert states["s"] in {"QUEUED", "RUNNING"}, "another job needs it"
    assert second.result()["said"] == ["s", "b"]


def test_a_part_cannot_be_cancelled_deleted_or_retried_alone(
    api: Client, workplace: Workplace, journal: Path, tmp_path: Path
) -> None:
    go_on = tmp_path / "go on"
    job = submit(api, [*parts(journal, "a"), *parts(journal, "b", action="wait", path=str(go_on))])
    with workplace.running():
        wait_for(lambda: "b" in lines(journal, "begins"))
        by_state = {c.raw_state: c.id for c in api.jobs.list(parent=job.id)}
        with pytest.raises(Exception, match="Another job waits for"):
            api.jobs.cancel(by_state["RUNNING"])
        with pytest.raises(Exception, match="Another job waits for"):
            api.jobs.delete(by_state["SUCCEEDED"])
        with pytest.raises(Exception, match="no job type that can be submitted"):
            api.jobs.retry(by_state["SUCCEEDED"])
        go_on.touch()
    assert job.refresh().raw_state == "SUCCEEDED"


def test_internal_types_are_not_offered(api: Client) -> None:
    assert "toy-parent" in {t.name for t in api.job_types.list()}
    assert "toy-part" not in {t.name for t in api.job_types.list()}
    with pytest.raises(Exception, match="There is no job type"):
        api.job_types.get("toy-part")
    with pytest.raises(Exception, match="There is no job type"):
        api.jobs.create("toy-part", {"name": "a"})


def test_delete_takes_the_parts_that_no_other_job_shares(
    api: Client, workplace: Workplace, journal: Path
) -> None:
    first, second = submit(api, parts(journal, "ab")), submit(api, parts(journal, "bc"))
    workplace.run()
    kept = {c.id for c in api.jobs.list(parent=second.id)}
    gone = {c.id for c in api.jobs.list(parent=first.id)} - kept
    api.jobs.delete(first.id)
    assert {c.id for c in api.jobs.list(parent=second.id)} == kept
    for job in gone:
        with pytest.raises(Exception, match="no job"):
            api.jobs.get(job)
    stored = {p.parts[-3] for p in workplace.settings_storage().rglob("art_*")}
    assert kept <= stored
    assert not gone & stored
    api.jobs.delete(second.id)
    submit(api, parts(journal, "b"))
    workplace.run()
    assert sorted(lines(journal, "begins")) == ["a", "b", "b", "c"]


@pytest.mark.parametrize("end", ["EXPIRED", "FAILED"])
def test_the_sweeper_cancels_what_nobody_waits_for(
    api: Client,
    workplace: Workplace,
    sweeper: Sweeper,
    engine: Engine,
    journal: Path,
    end: str,
) -> None:
    job = submit(api, parts(journal, "ab"), max_attempts=1, queue_timeout=3600)
    with engine.begin() as connection:
        row = connection.execute(transitions.claim("w", ["cpu"], timedelta(minutes=1))).one()
        connection.execute(transitions.submit_child(row.id, 1, part("k"), 0)).one()
        connection.execute(transitions.link_child(row.id, 1, "k", 0, reused=False)).one()
    sweeper.sweep()
    assert job.refresh().children.queued == 1
    if end == "EXPIRED":
        with engine.begin() as connection:
            connection.execute(transitions.release(job.id, 1))
        run_sql(engine, "UPDATE jobs SET queue_deadline = now() - interval '1 s' WHERE turn = id")
    else:
        run_sql(engine, "UPDATE jobs SET lease_until = now() - interval '1 s' WHERE turn = id")
    sweeper.sweep()
    assert (job.refresh().raw_state, job.children.cancelled) == (end, 1)


def test_parts_outlive_their_retention_while_they_are_needed(
    api: Client,
    workplace: Workplace,
    other: Workplace,
    sweeper: Sweeper,
    engine: Engine,
    journal: Path,
    tmp_path: Path,
) -> None:
    go_on = tmp_path / "go on"
    job = submit(api, [*parts(journal, "b", action="wait", path=str(go_on)), *parts(journal, "a")])
    old = submit(api, parts(journal, "a"))
    past = "UPDATE jobs SET expires_at = now() - interval '1 s' WHERE state = 'SUCCEEDED'"
    with at_work(workplace, other):
        wait_for(lambda: old.refresh().raw_state == "SUCCEEDED")
        run_sql(engine, past)
        sweeper.clean()
        with pytest.raises(Exception, match="no job"):
            api.jobs.get(old.id)
        assert job.refresh().children.succeeded == 1, "still needed"
        go_on.touch()
        job.wait(timeout=30)
    assert lines(journal, "begins").count("a") == 1
    run_sql(engine, past)
    sweeper.clean()
    assert run_sql(engine, "SELECT count(*) FROM jobs WHERE deleted_at IS NULL") == [(0,)]


def test_shutdown_hands_job_and_part_back(
    api: Client, workplace: Workplace, other: Workplace, journal: Path, tmp_path: Path
) -> None:
    go_on = tmp_path / "go on"
    wanted = [*parts(journal, "a", action="wait", path=str(go_on)), *parts(journal, "b")]
    job = submit(api, wanted, max_attempts=1)
    with workplace.running():
        wait_for(lambda: "a" in lines(journal, "begins"))
        workplace.shutdown.begin()
    assert job.refresh().raw_state == "QUEUED"
    assert job.children.queued == 2
    go_on.touch()
    with at_work(other):
        job.wait(timeout=30)
    assert job.result()["said"] == ["a", "b"]
    assert [a.outcome for a in job.attempts()] == ["released", "succeeded"]


def test_a_worker_that_only_waits_gives_the_job_back_at_once(
    api: Client, workplace: Workplace, journal: Path
) -> None:
    workplace.executor._resources = ["cpu"]
    job = submit(api, parts(journal, "a", resource="gpu"))
    with workplace.running():
        wait_for(lambda: job.refresh().children is not None)
        assert job.raw_state == "RUNNING"
        workplace.shutdown.begin()
    assert job.refresh().raw_state == "QUEUED"


@pytest.mark.parametrize("whole", ["toy-parent", "toy-parent-isolated"])
def test_timeout_while_waiting(
    api: Client, workplace: Workplace, journal: Path, whole: str
) -> None:
    workplace.executor._resources = ["cpu"]
    for seconds in (1, 5, 25):  # a process of its own has to start first, on whatever machine
        job = submit(api, parts(journal, "a", resource="gpu"), whole, timeout=seconds)
        workplace.run()
        assert job.refresh().error.code == "timeout"
        if job.children is not None:
            break
    assert job.children.cancelled == 1


def test_a_waiting_job_outlives_a_database_outage(
    api: Client, workplace: Workplace, other: Workplace, engine: Engine, journal: Path
) -> None:
    workplace.executor._resources, other.executor._resources = ["cpu"], ["gpu"]
    job = submit(api, parts(journal, "a", resource="gpu"))
    sever = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE application_name = 'test-worker'"
    )
    with at_work(workplace):
        wait_for(lambda: job.refresh().children is not None)
        for _ in range(5):
            run_sql(engine, sever)
            time.sleep(0.05)
        with at_work(other):
            job.wait(timeout=30)
    assert (job.raw_state, job.attempt) == ("SUCCEEDED", 1)
