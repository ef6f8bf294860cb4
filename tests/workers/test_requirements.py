"""A worker takes what it can run; a job that nobody can run says what it waits for."""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from datassay import Client
from sqlalchemy import Engine

from models import queries, transitions
from tests.services import Workplace
from workers import children
from workers.sweeper import Sweeper

LACKS = "a_module_that_nobody_has"
ABLE: Mapping[str, list[str]] = {"toy": [], "toy-demanding": []}


def announce(
    engine: Engine, name: str, missing: Mapping[str, list[str]], kind: str = "cpu"
) -> None:
    with engine.begin() as connection:
        connection.execute(queries.workers.announce(name, [kind], missing))


def note(engine: Engine) -> list[Any]:
    with engine.begin() as connection:
        return list(connection.execute(transitions.note_waiting(100, timedelta(0))).all())


def test_a_worker_leaves_alone_what_it_cannot_run(api: Client, workplace: Workplace) -> None:
    demanding = api.jobs.create("toy-demanding", {})
    plain = api.jobs.create("toy", {})
    assert workplace.executor.missing["toy-demanding"] == [LACKS]
    assert workplace.run() == 1
    assert plain.refresh().raw_state == "SUCCEEDED"
    assert (demanding.refresh().raw_state, demanding.attempt) == ("QUEUED", 0)


def test_the_job_says_which_module_is_missing_and_when_it_is_not(
    api: Client, engine: Engine, workplace: Workplace
) -> None:
    announce(engine, "poor", {"toy": [], "toy-demanding": ["numpy", LACKS]})
    announce(engine, "better", {"toy": [], "toy-demanding": [LACKS]})
    job = api.jobs.create("toy-demanding", {})
    other = api.jobs.create("toy", {})
    assert job.waiting_for is None
    assert [row.id for row in note(engine)] == [job.id]
    assert job.refresh().waiting_for == [LACKS], "what the best of them lacks"
    assert next(j for j in api.jobs.list() if j.id == job.id).waiting_for == [LACKS]
    assert [(e.kind, e.data) for e in api.jobs.events(job.id)][-1] == (
        "waiting",
        {"waiting_for": [LACKS]},
    )
    assert other.refresh().waiting_for is None
    assert note(engine) == [], "said once"
    announce(engine, "rich", ABLE)
    assert [row.id for row in note(engine)] == [job.id]
    assert job.refresh().waiting_for is None
    assert job.version == 3


def test_each_kind_of_job_has_a_reason_of_its_own(api: Client, engine: Engine) -> None:
    announce(engine, "poor", {"toy": ["torch"], "toy-demanding": ["numpy", LACKS]})
    first = api.jobs.create("toy-demanding", {})
    second = api.jobs.create("toy-demanding", {"number": 1})
    other = api.jobs.create("toy", {})
    assert {row.id for row in note(engine)} == {first.id, second.id, other.id}
    assert first.refresh().waiting_for == second.refresh().waiting_for == ["numpy", LACKS]
    assert other.refresh().waiting_for == ["torch"]
    api.jobs.create("toy", {})
    assert len(note(engine)) == 1, "the others are told nothing again"


def test_workers_of_an_earlier_release_are_not_taken_for_none(
    api: Client, engine: Engine, workplace: Workplace
) -> None:
    api.jobs.create("toy", {})
    with engine.begin() as connection:
        connection.execute(transitions.claim("from:before", ["cpu"], timedelta(seconds=90)))
    waiting = api.jobs.create("toy", {})
    assert note(engine) == []
    announce(engine, "from:before", {"toy": ["torch"]})
    assert [row.id for row in note(engine)] == [waiting.id]


def test_a_job_whose_parts_no_worker_can_run_fails_and_says_why(
    api: Client, engine: Engine, workplace: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(children, "_NO_WORKER_SECONDS", 0.0)
    monkeypatch.setattr(workplace.executor, "_resources", ["cpu"])
    parent = api.jobs.create("toy-parent", {"parts": [{"name": "a", "resource": "gpu"}]})
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(workplace.run)
        while not running.done():
            note(engine)
            time.sleep(0.01)
    assert parent.refresh().raw_state == "FAILED"
    assert parent.error is not None
    assert parent.error.code == "no_worker"
    assert parent.error.message.startswith("No live worker can run toy-part, a part of this job; ")
    assert parent.error.details["waiting_for"] == ["a worker of class gpu"]


@pytest.mark.parametrize(
    ("kind", "missing", "expected"),
    [
        ("gpu", ABLE, ["a worker of class cpu"]),
        ("cpu", {"toy": []}, ["a worker that has toy-demanding"]),
    ],
)
def test_what_kind_of_worker_is_missing(
    api: Client, engine: Engine, kind: str, missing: Mapping[str, list[str]], expected: list[str]
) -> None:
    announce(engine, "w", missing, kind)
    job = api.jobs.create("toy-demanding", {})
    note(engine)
    assert job.refresh().waiting_for == expected


def test_a_worker_that_was_not_heard_of_is_none(api: Client, engine: Engine) -> None:
    announce(engine, "able", ABLE)
    job = api.jobs.create("toy", {})
    assert note(engine) == []
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE workers SET seen_at = now() - interval '1 minute'")
    note(engine)
    assert job.refresh().waiting_for == ["a worker of class cpu"]
    with engine.begin() as connection:
        connection.execute(queries.workers.forget_dead(timedelta(seconds=30)))
        assert connection.exec_driver_sql("SELECT count(*) FROM workers").scalar_one() == 0


def test_a_job_that_starts_waits_for_nothing(
    api: Client, engine: Engine, workplace: Workplace
) -> None:
    job = api.jobs.create("toy", {})
    note(engine)
    assert job.refresh().waiting_for == ["a worker of class cpu"]
    workplace.run()
    assert (job.refresh().raw_state, job.waiting_for) == ("SUCCEEDED", None)


def test_the_sweeper_gives_a_worker_time_to_start(
    api: Client, engine: Engine, sweeper: Sweeper
) -> None:
    job = api.jobs.create("toy", {})
    sweeper.sweep()
    assert job.refresh().waiting_for is None
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "UPDATE jobs SET not_before = now() - interval '1 minute',"
            " created_at = now() - interval '1 minute'"
        )
    sweeper.sweep()
    assert job.refresh().waiting_for is None, "workers may have started with the sweeper"
    sweeper._noted_at = float("-inf")
    sweeper.sweep()
    assert job.refresh().waiting_for == ["a worker of class cpu"]
