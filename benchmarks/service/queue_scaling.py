"""Whether the queue stays fast: statements over a full jobs table beside those over a small one.

    python -m benchmarks queue_scaling [--jobs 1000000] [--tenants 100] [--repeats 200] [--explain]

Two databases of one server hold 1,000 jobs and `--jobs` jobs of the same number of tenants, one in
ten queued. Prints what claiming, reading, listing and counting take in both, in turn, as ratios.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.dialects import postgresql

from benchmarks._harness.timing import flat, interleave, seconds
from infra.settings import Settings
from models import queries, schema, transitions
from models.queries import accounts
from server.embedded import Postgres
from tests.toys.reporting import table, write

ROOT = Path(__file__).parents[2]

SMALL = 1_000
LEASE = timedelta(seconds=90)

_TENANTS = "INSERT INTO tenants (id, name) SELECT 'ten_' || i, 'tenant ' || i FROM {tenants} AS i"

# Nine of ten have succeeded; every tenth waits.
_JOBS = """
INSERT INTO jobs (id, tenant_id, type, type_version, resource, state, spec, labels, priority,
  timeout_seconds, retention_seconds, max_attempts, created_at, finished_at, expires_at, result,
  cache_key, turn)
SELECT 'job_' || lpad(to_hex(i), 32, '0'), 'ten_' || (i / 10 % :tenants + 1), 'toy', '1',
  (ARRAY['cpu', 'gpu', 'llm'])[i / 10 % 3 + 1], CASE WHEN queued THEN 'QUEUED' ELSE 'SUCCEEDED' END,
  '{"steps": 1}', jsonb_build_object('n', i % 7), i % 3, 60, 3600, 3,
  now() - make_interval(secs => :jobs - i),
  CASE WHEN NOT queued THEN now() END,
  CASE WHEN NOT queued THEN now() + interval '30 days' END,
  CASE WHEN NOT queued THEN '{"steps": 1}'::json END, sha256(i::text::bytea),
  'job_' || lpad(to_hex(i), 32, '0')
FROM (SELECT i, i % 10 = 0 AS queued FROM generate_series(1, :jobs) AS i) AS numbers
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=1_000_000)
    parser.add_argument("--tenants", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--explain", action="store_true", help="print the plan of the claim")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="datassay-bench-") as folder:
        Path(folder).chmod(0o711)
        server = Postgres.prepare(Path(folder))
        server.start()
        try:
            engines = {
                size: fill(server, f"jobs{size}", size, args.tenants) for size in (SMALL, args.jobs)
            }
            measure(engines, args)
        finally:
            server.stop()


def fill(server: Postgres, name: str, jobs: int, tenants: int) -> Engine:
    admin = engine_of(server.url)
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    admin.dispose()
    url = server.url.replace("@/datassay?", f"@/{name}?")
    schema.upgrade(Settings(database_url=url))
    engine = engine_of(url)
    with engine.connect() as connection:
        connection.execute(text(_TENANTS.format(tenants=f"generate_series(1, {tenants})")))
        connection.execute(text(_JOBS), {"jobs": jobs, "tenants": tenants})
        connection.execute(text("VACUUM ANALYZE"))
    return engine


def engine_of(url: str) -> Engine:
    psycopg = url.replace("postgresql://", "postgresql+psycopg://")
    return create_engine(psycopg, isolation_level="AUTOCOMMIT")


def statements(jobs: int) -> dict[str, Any]:
    job_id = f"job_{jobs // 2 + 1:032x}"
    tenant = f"ten_{(jobs // 2 + 1) // 10 % 100 + 1}"
    key = bytes(32)
    return {
        "claim": transitions.claim("w", ["cpu", "gpu", "llm"], LEASE, 1_000),
        "get": queries.jobs.get(tenant, job_id),
        "list, 10 a page": queries.jobs.page(tenant, limit=10),
        "a poll's look": queries.jobs.version(tenant, job_id),
        "count queued (quota)": accounts.queued_jobs(tenant),
        "look into the cache": queries.cache.in_flight_duplicate(tenant, key, 0),
        "sweep: ended twins": transitions.adopt_result(200),
    }


def measure(engines: dict[int, Engine], args: argparse.Namespace) -> None:
    contenders: dict[str, tuple[Callable[[], object], int]] = {}
    connections = []
    for size, engine in engines.items():
        # One transaction that is taken back after each statement: the table stays as it is, and
        # the disk, which is the same for both, is left out.
        connection = engine.connect().execution_options(isolation_level="READ COMMITTED")
        connections.append(connection)
        for what, statement in statements(size).items():
            contenders[f"{what}|{size}"] = (lambda c=connection, s=statement: once(c, s)), 1
        if args.explain:
            once(connection, statements(size)["claim"])
            explain(connection, statements(size)["claim"])
    timings = interleave(contenders, args.repeats)
    rows, ratios = [], {}
    for what in statements(SMALL):
        small, large = (timings[f"{what}|{size}"] for size in engines)
        ratios[what] = large.wall / small.wall
        rows.append([what, seconds(small.wall), seconds(large.wall), f"{ratios[what]:.2f}"])
    print(table(["", *(f"{size:,} jobs" for size in engines), "ratio"], rows))
    about = {"jobs": args.jobs, "tenants": args.tenants, "ratios": ratios}
    write("queue_scaling", [{"what": k, **flat(v)} for k, v in timings.items()], **about)
    for connection in connections:
        connection.close()


def once(connection: Connection, statement: Any) -> None:
    result = connection.execute(*(statement if isinstance(statement, tuple) else (statement,)))
    if result.returns_rows:
        result.all()
    connection.rollback()


def explain(connection: Connection, statement: Any) -> None:
    compiled = statement.compile(
        dialect=postgresql.psycopg.dialect(), compile_kwargs={"render_postcompile": True}
    )
    plan = connection.exec_driver_sql(f"EXPLAIN ANALYZE {compiled}", compiled.params)
    print("\n".join(row[0] for row in plan), "\n")
    connection.rollback()


if __name__ == "__main__":
    main()
