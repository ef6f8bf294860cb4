"""Whose turn it is: fairness between tenants, limits, and claims at the same moment."""

from __future__ import annotations

import random
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection, Engine, text

from infra.ids import new_id
from models import transitions
from models.queries import accounts
from tests.models.factories import add_job, add_tenant

LEASE = timedelta(seconds=60)


def claim(connection: Connection, max_running: int | None = None) -> Any:
    return connection.execute(transitions.claim("w", ["cpu"], LEASE, max_running)).first()


def add_jobs(connection: Connection, tenant: str, count: int) -> None:
    """Copies of one job, in bulk."""
    job = add_job(connection, tenant)
    names = [
        row[0]
        for row in connection.execute(
            text(
                "SELECT column_name FROM information_schema.columns "
                "WHERE table_name = 'jobs' AND column_name <> 'id'"
            )
        )
    ]
    columns = ", ".join(names)
    connection.execute(
        text(
            f"INSERT INTO jobs (id, {columns}) SELECT 'job_' || lpad(to_hex(i), 32, '0'), {columns}"
            " FROM jobs, generate_series(1, :count) AS i WHERE id = :id"
        ),
        {"count": count - 1, "id": job},
    )


def test_ten_thousand_jobs_of_one_tenant_do_not_delay_anothers_first(engine: Engine) -> None:
    with engine.begin() as connection:
        add_jobs(connection, add_tenant(connection, "big"), 10_000)
    rng = random.Random(1)
    for round_ in range(20):
        with engine.begin() as connection:
            for _ in range(rng.randrange(1, 5)):  # other workers take what is there
                assert claim(connection).tenant_id is not None
            small = add_job(connection, add_tenant(connection, f"small {round_}"), priority=-100)
            # The next worker that becomes free takes it: one job's length at most.
            assert claim(connection).id == small


def test_busy_tenants_get_the_same_number_of_turns(engine: Engine) -> None:
    with engine.begin() as connection:
        sizes = {add_tenant(connection, f"t{n}"): n for n in (5, 30, 3_000)}
        for tenant, size in sizes.items():
            add_jobs_of(connection, tenant, size)
        turns = Counter(claim(connection).tenant_id for _ in range(15))
        assert set(turns.values()) == {5}
        later = Counter(claim(connection).tenant_id for _ in range(20))
        assert sorted(later.values()) == [10, 10], "one has run dry, the others share"


def add_jobs_of(connection: Connection, tenant: str, count: int) -> None:
    job = add_job(connection, tenant)
    connection.execute(
        text(
            "INSERT INTO jobs (id, tenant_id, type, type_version, resource, state, spec,"
            " timeout_seconds, retention_seconds, max_attempts, turn)"
            " SELECT 'job_' || md5(tenant_id || i), tenant_id, type, type_version, resource, state,"
            " spec, timeout_seconds, retention_seconds, max_attempts, id || i"
            " FROM jobs, generate_series(2, :count) AS i WHERE id = :id"
        ),
        {"count": count, "id": job},
    )


def test_a_claim_in_flight_hides_no_other_job(engine: Engine) -> None:
    with engine.begin() as connection:
        jobs = {add_job(connection, add_tenant(connection, name)) for name in ("a", "b")}
    with engine.begin() as first:
        taken = claim(first).id
        with engine.begin() as second:
            other = claim(second)
            assert other is not None, "the job of the other tenant is there to take"
            assert {taken, other.id} == jobs


def test_claims_at_the_same_moment_take_different_jobs(engine: Engine) -> None:
    with engine.begin() as connection:
        add_jobs(connection, add_tenant(connection), 40)
    barrier = threading.Barrier(8)

    def work(_: int) -> list[str]:
        barrier.wait()
        taken = []
        for _ in range(5):
            with engine.begin() as connection:
                taken.append(claim(connection).id)
        return taken

    with ThreadPoolExecutor(8) as pool:
        taken = [job for jobs in pool.map(work, range(8)) for job in jobs]
    assert len(taken) == len(set(taken)) == 40, "nobody came back empty-handed"


def test_running_jobs_never_pass_the_limit(engine: Engine) -> None:
    """Also when many workers ask at the same moment, time and again."""
    with engine.begin() as connection:
        tenant = add_tenant(connection)
        add_jobs(connection, tenant, 60)

    def work(barrier: threading.Barrier) -> Any:
        barrier.wait()
        with engine.begin() as connection:
            return claim(connection, 3)

    with ThreadPoolExecutor(8) as pool:
        for _ in range(15):
            barrier = threading.Barrier(8)
            rows = [row for row in pool.map(work, [barrier] * 8) if row is not None]
            assert 1 <= len(rows) <= 3
            with engine.begin() as connection:
                while (row := claim(connection, 3)) is not None:
                    rows.append(row)
                assert len(rows) == 3
                assert connection.execute(accounts.usage(tenant)).one().running_jobs == 3
                for row in rows:
                    connection.execute(transitions.finish(row.id, row.attempt, {}, {}))


def test_a_tenant_at_its_limit_lets_others_pass(engine: Engine) -> None:
    with engine.begin() as connection:
        small, big = add_tenant(connection, "small"), add_tenant(connection, "big")
        add_jobs_of(connection, small, 3)
        add_jobs_of(connection, big, 5)
        connection.execute(accounts.limit_tenant(small, {"max_running_jobs": 1}))
        claimed = Counter(claim(connection, 3).tenant_id for _ in range(4))
        assert claimed == {small: 1, big: 3}
        assert claim(connection, 3) is None


def test_children_of_a_running_job_start_beyond_the_limit(engine: Engine) -> None:
    """Their parent waits for them: at the limit, it would wait for ever."""
    with engine.begin() as connection:
        tenant = add_tenant(connection)
        parent = add_job(connection, tenant)
        assert claim(connection, 1).id == parent
        add_jobs_of(connection, tenant, 30)
        connection.execute(text("UPDATE jobs SET priority = 100 WHERE state = 'QUEUED'"))
        child = {
            "id": new_id("job"),
            "type": "toy",
            "type_version": "1",
            "resource": "cpu",
            "spec": {},
            "inputs": [],
            "timeout_seconds": 60.0,
            "content_key": "k",
        }
        assert connection.execute(transitions.submit_child(parent, 1, child, 0)).first()
        assert connection.execute(accounts.queued_jobs(tenant)).scalar_one() == 30
        assert claim(connection, 1).id == child["id"], "behind thirty that are more urgent"
        assert claim(connection, 1) is None
        assert connection.execute(accounts.usage(tenant)).one().running_jobs == 1
