"""`datassay-server doctor`: what is set up, what is not, and what to do about it."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from infra.broker import Broker, create_celery
from infra.settings import Settings
from infra.storage import Storage
from models import queries, schema
from models.database import sync_engine, sync_sessions
from models.queries import integrity
from server.embedded import EmbeddedError, find_postgres, find_valkey

#: A sweeper that is so far behind is no sweeper.
_SWEEPER_LATE = timedelta(minutes=2)
#: A look at everything may take longer than a request.
_PATIENCE = timedelta(minutes=10)
_BATCH = 1000


@dataclass(frozen=True)
class Finding:
    """One line of the report; `ok` None is information."""

    ok: bool | None
    subject: str
    text: str


def examine(settings: Settings) -> Iterator[Finding]:
    """Check everything that can be checked, one after another."""
    version = ".".join(map(str, sys.version_info[:3]))
    yield Finding(sys.version_info >= (3, 11, 4), "python", version)
    yield _binary("postgres binaries", find_postgres)
    yield _binary("valkey binaries", find_valkey)
    for extra, module in (("s3", "s3fs"), ("hf", "huggingface_hub"), ("ray", "ray")):
        present = importlib.util.find_spec(module) is not None
        text = "installed" if present else f"not installed: {_install(extra)}"
        yield Finding(None, f"extra {extra}", text)
    yield from _job_types(settings)
    try:
        settings.require_secret()
        yield Finding(True, "secret", "set")
    except ValueError as error:
        yield Finding(False, "secret", str(error))
    database = list(_database(settings))
    yield from database
    yield _broker(settings)
    if all(finding.ok for finding in database):
        yield from _integrity(settings)


def _install(*extras: str) -> str:
    return f"pip install 'datassay-server[{','.join(sorted(set(extras)))}]'"


def _job_types(settings: Settings) -> Iterator[Finding]:
    """Whether this installation can run each job type, and the command that would make it so.

    Information and no fault: a machine need not run every job type, or any.
    """
    # In a process of its own: the command does not import the code of methods.
    command = [sys.executable, "-P", "-m", "methods", "requirements"]
    for folder in settings.extra_methods:
        command += ["--methods", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["no output"])[-1]
        yield Finding(False, "job types", f"cannot be loaded: {reason}")
        return
    for name, missing in json.loads(done.stdout).items():
        text = "can run here"
        if missing:
            extras = [extra for extra in missing.values() if extra]
            text = f"cannot run here, {', '.join(missing)} missing"
            text += f": {_install(*extras)}" if extras else ""
        yield Finding(None, name, text)


def _binary(subject: str, find: Callable[[], object]) -> Finding:
    try:
        return Finding(None, subject, str(find()))
    except EmbeddedError as error:
        return Finding(None, subject, str(error))


def _database(settings: Settings) -> Iterator[Finding]:
    engine = sync_engine(settings, "datassay-doctor")
    try:
        with sync_sessions(engine).begin() as session:
            session.execute(queries.jobs.ping())
            yield Finding(True, "database", "answers")
            revision = session.execute(schema.current()).scalar_one_or_none()
        expected = schema.head()
        text = f"{revision}" if revision == expected else f"{revision}, but {expected} is needed"
        yield Finding(revision == expected, "schema", text)
    except SQLAlchemyError as error:
        reason = str(error).splitlines()[0]
        yield Finding(False, "database", f"{reason} (set DATASSAY_DATABASE_URL, run migrate)")
    finally:
        engine.dispose()


def _broker(settings: Settings) -> Finding:
    broker = Broker(create_celery(settings))
    try:
        if broker.is_reachable():
            return Finding(True, "broker", "answers")
        return Finding(False, "broker", "away: jobs start within 2 s instead of at once")
    finally:
        broker.close()


def _integrity(settings: Settings) -> Iterator[Finding]:
    """What the sweeper should have repaired by now, and what must not be at all."""
    patient = settings.model_copy(update={"statement_timeout": _PATIENCE})
    engine = sync_engine(patient, "datassay-doctor")
    with sync_sessions(engine).begin() as session:
        for subject, statement in integrity.contradictions(_SWEEPER_LATE).items():
            yield _none_of(subject, session.execute(statement).scalars().all())
        yield from _bytes(session, Storage(settings.storage_url), settings.orphan_retention)
    engine.dispose()


def _bytes(session: Session, storage: Storage, retention: timedelta) -> Iterator[Finding]:
    def referred() -> set[str]:
        return set(session.execute(integrity.referred_keys()).scalars())

    rows, stored = referred(), list(storage.keys())
    missing = rows.difference(stored)
    # Asked again: what is missing may just have been deleted.
    yield _none_of("rows without bytes", missing & referred() if missing else missing)
    nameless: set[str] = set()
    for start in range(0, len(stored), _BATCH):
        statement = integrity.orphans(stored[start : start + _BATCH])
        nameless.update(session.execute(statement).scalars())
    overdue = nameless.intersection(storage.keys(2 * retention))
    yield _none_of("bytes without a row", overdue)
    if young := len(nameless - overdue):
        yield Finding(None, "to be swept up", f"{young} files without a row")


def _none_of(subject: str, ids: Collection[str]) -> Finding:
    example = f", e.g. {min(ids)}" if ids else ""
    return Finding(not ids, subject, f"{len(ids)}{example}")
