"""`datassay-server doctor`: what is set up, what is not, and what to do about it."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from sqlalchemy.exc import SQLAlchemyError

from models import repositories, schema
from models.database import sync_engine, sync_sessions
from models.doorbell import Doorbell, create_celery
from models.settings import Settings
from models.storage import Storage
from server.embedded import EmbeddedError, find_postgres, find_valkey


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
    for extra, module in (("worker", "scipy"), ("s3", "s3fs"), ("hf", "huggingface_hub")):
        present = importlib.util.find_spec(module) is not None
        text = "installed" if present else f"not installed: pip install datassay-server[{extra}]"
        yield Finding(None, f"extra {extra}", text)
    try:
        settings.require_secret()
        yield Finding(True, "secret", "set")
    except ValueError as error:
        yield Finding(False, "secret", str(error))
    database = list(_database(settings))
    yield from database
    yield _broker(settings)
    if all(finding.ok for finding in database):
        yield from _orphans(settings)


def _binary(subject: str, find: Callable[[], object]) -> Finding:
    try:
        return Finding(None, subject, str(find()))
    except EmbeddedError as error:
        return Finding(None, subject, str(error))


def _database(settings: Settings) -> Iterator[Finding]:
    engine = sync_engine(settings, "datassay-doctor")
    try:
        with sync_sessions(engine).begin() as session:
            session.execute(repositories.ping())
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
    doorbell = Doorbell(create_celery(settings))
    try:
        if doorbell.answers():
            return Finding(True, "broker", "answers")
        return Finding(False, "broker", "away: jobs start within 2 s instead of at once")
    finally:
        doorbell.close()


def _orphans(settings: Settings) -> Iterator[Finding]:
    """Stored bytes that no row knows, and rows whose bytes are gone."""
    engine = sync_engine(settings, "datassay-doctor")
    with sync_sessions(engine).begin() as session:
        rows = session.execute(repositories.storage_keys()).all()
        running = set(session.execute(repositories.unfinished_jobs()).scalars())
    engine.dispose()
    stored, known = set(Storage(settings.storage_url).keys()), {row.storage_key for row in rows}
    # A running attempt writes bytes before it writes rows.
    nameless = {k for k in stored - known if k.split("/")[1] not in running}
    missing = known - stored
    for kind, keys in (("bytes without a row", nameless), ("rows without bytes", missing)):
        example = f", e.g. {min(keys)}" if keys else ""
        yield Finding(not keys, kind, f"{len(keys)}{example}")
