"""What a gateway keeps in memory is dropped the moment that the database tells of a change."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import httpx2
import pytest
from sqlalchemy import Engine, event, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from app.problems import NotFound, RateLimited, Unauthenticated
from app.services import notifications
from app.services.auth import Authenticator
from app.services.long_polling import LongPolling
from app.services.rate_limits import Bucket, RateLimiter
from infra.ids import new_id
from infra.settings import Settings
from models.database import async_engine, reading_sessions, sync_engine
from server import keys
from server.embedded import Valkey
from tests.app.raw import PATIENCE, connect, post, run_sql
from tests.models.factories import add_job

_LISTENER = "test-listener"
_LISTENERS = f"FROM pg_stat_activity WHERE application_name = '{_LISTENER}'"


@dataclass
class Desk:
    """An authenticator with its own connections, and the statements that it sent."""

    auth: Authenticator
    reads: async_sessionmaker[AsyncSession]
    changes: notifications.JobNotifications
    statements: list[str] = field(default_factory=list)

    async def until(self, condition: Callable[[], bool]) -> None:
        for _ in range(500):
            if condition():
                return
            await asyncio.sleep(0.01)
        raise AssertionError("it did not come")


@pytest.fixture
async def desk(settings: Settings) -> AsyncIterator[Desk]:
    engine = async_engine(settings, "test-desk")
    url = settings.database_url.get_secret_value()
    heard = notifications.JobNotifications(
        url + ("&" if "?" in url else "?") + "application_name=" + _LISTENER
    )
    reads = reading_sessions(engine)
    auth = Authenticator(reads, settings.require_secret(), heard)
    desk = Desk(auth, reads, heard)
    event.listen(
        engine.sync_engine,
        "before_cursor_execute",
        lambda c, cursor, statement, *rest: desk.statements.append(statement),
    )
    heard.start()
    await desk.until(lambda: heard.keys is not None)
    yield desk
    await heard.stop()
    await engine.dispose()


@pytest.fixture
def http(gateway_url: str, service_settings: Settings, engine: Engine) -> Iterator[httpx2.Client]:
    with connect(gateway_url, service_settings) as client:
        yield client


async def test_a_key_is_looked_up_once(settings: Settings, desk: Desk) -> None:
    token = keys.create(settings, "acme", "k", ["jobs:read"])
    callers = [await desk.auth.authenticate(token, f"10.0.0.{i}") for i in range(5)]
    selects = [s for s in desk.statements if s.startswith("SELECT")]
    assert len(selects) == 1
    assert {caller.scopes for caller in callers} == {frozenset(["jobs:read"])}
    assert [caller.address for caller in callers] == [f"10.0.0.{i}" for i in range(5)]


@pytest.mark.parametrize(
    "change",
    ["SET revoked_at = now()", "SET expires_at = now() - interval '1 s'"],
)
async def test_a_key_that_ends_elsewhere_is_refused(
    settings: Settings, desk: Desk, engine: Engine, change: str
) -> None:
    token = keys.create(settings, "acme", "k", ["jobs:read"])
    await desk.auth.authenticate(token)
    before = desk.changes.keys
    await asyncio.to_thread(run_sql, engine, f"UPDATE api_keys {change}")
    await desk.until(lambda: desk.changes.keys != before)
    with pytest.raises(Unauthenticated):
        await desk.auth.authenticate(token)


async def test_scopes_that_change_are_read_again(
    settings: Settings, desk: Desk, engine: Engine
) -> None:
    token = keys.create(settings, "acme", "k", ["jobs:read"])
    await desk.auth.authenticate(token)
    before = desk.changes.keys
    await asyncio.to_thread(run_sql, engine, "UPDATE api_keys SET scopes = '{jobs:write}'")
    await desk.until(lambda: desk.changes.keys != before)
    assert (await desk.auth.authenticate(token)).scopes == {"jobs:write"}


async def test_the_clock_ends_a_remembered_key(
    settings: Settings, desk: Desk, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = keys.create(settings, "acme", "k", ["jobs:read"])
    soon = datetime.now(UTC) + timedelta(seconds=1)
    await asyncio.to_thread(run_sql, engine, f"UPDATE api_keys SET expires_at = '{soon}'")
    await desk.until(lambda: bool(run_sql(engine, "SELECT 1")))
    await desk.auth.authenticate(token)
    await asyncio.sleep(1.1)
    with pytest.raises(Unauthenticated):
        await desk.auth.authenticate(token)


async def test_who_hears_nothing_remembers_nothing(
    settings: Settings, desk: Desk, engine: Engine
) -> None:
    token = keys.create(settings, "acme", "k", ["jobs:read"])
    await desk.auth.authenticate(token)
    await desk.changes.stop()
    assert desk.changes.keys is None
    await asyncio.to_thread(run_sql, engine, "UPDATE api_keys SET revoked_at = now()")
    with pytest.raises(Unauthenticated):
        await desk.auth.authenticate(token)
    desk.changes.start()


async def test_a_lost_connection_is_noticed_and_taken_up_again(
    settings: Settings, desk: Desk, engine: Engine
) -> None:
    token = keys.create(settings, "acme", "k", ["jobs:read"])
    await desk.auth.authenticate(token)
    with desk.changes.learning("job_1") as learn:
        learn("old")
    await asyncio.to_thread(run_sql, engine, f"SELECT pg_terminate_backend(pid) {_LISTENERS}")
    await desk.until(lambda: desk.changes.keys is None)
    assert desk.changes.known("job_1") is None
    await asyncio.to_thread(run_sql, engine, "UPDATE api_keys SET revoked_at = now()")
    with pytest.raises(Unauthenticated):
        await desk.auth.authenticate(token)
    await desk.until(lambda: desk.changes.keys is not None)
    before = desk.changes.keys
    await asyncio.to_thread(run_sql, engine, "UPDATE api_keys SET revoked_at = NULL")
    await desk.until(lambda: desk.changes.keys != before)
    assert (await desk.auth.authenticate(token)).scopes == {"jobs:read"}


async def test_what_was_read_while_something_was_heard_is_not_kept(desk: Desk) -> None:
    with desk.changes.learning("job_1") as learn:
        desk.changes.job_changed("job_1")
        learn("old")
    assert desk.changes.known("job_1") is None
    with desk.changes.learning("job_1") as learn:
        desk.changes._wake_all()  # as after a time without ears
        learn("old")
    assert desk.changes.known("job_1") is None
    with desk.changes.learning("job_1") as learn:
        learn("new")
    assert desk.changes.known("job_1") == "new"
    desk.changes.job_changed("job_1")
    assert desk.changes.known("job_1") is None


async def test_of_many_who_ask_at_once_one_reads(
    settings: Settings, desk: Desk, engine: Engine
) -> None:
    token = keys.create(settings, "acme", "k", ["jobs:read"])
    caller = await desk.auth.authenticate(token)
    with engine.begin() as connection:
        job_id = add_job(connection, caller.tenant_id)
    watching = LongPolling(desk.reads, desk.changes)
    desk.statements.clear()
    found = await asyncio.gather(
        *(watching.wait(caller, job_id, 0.0, f"v{i}") for i in range(200)), return_exceptions=True
    )
    assert found == ["v1"] * 200
    assert len(desk.statements) == 1
    with pytest.raises(NotFound):
        await watching.wait(replace(caller, tenant_id="ten_other"), job_id, 0.0, "v1")


async def test_what_is_too_old_to_be_believed_takes_no_memory(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notifications, "_KEEP", 0.1)
    for number in range(100):
        with desk.changes.learning(f"job_{number}") as learn:
            learn(number)
    await asyncio.sleep(0.15)
    assert desk.changes.known("job_99") is None
    with desk.changes.learning("job_100") as learn:
        learn(100)
    assert list(desk.changes._known) == ["job_100"]


def test_a_poll_sees_every_change_at_once(
    http: httpx2.Client, gateway_url: str, engine: Engine
) -> None:
    path = post(http).json()["links"]["self"]

    def poll(etag: str) -> httpx2.Response:
        return http.get(path, headers={"If-None-Match": etag})

    etag = http.get(path).headers["etag"]
    assert [poll(etag).status_code for _ in range(3)] == [304] * 3
    # By the gateway itself there is no moment in which the old state is told.
    assert http.post(f"{path}/cancel").status_code == 200
    changed = poll(etag)
    assert (changed.status_code, changed.json()["state"]) == (200, "CANCELLED")
    assert [poll(changed.headers["etag"]).status_code for _ in range(2)] == [304] * 2
    # By others within the time of a notification.
    run_sql(engine, "UPDATE jobs SET deleted_at = now()")
    for _ in range(200):
        if poll(changed.headers["etag"]).status_code == 404:
            break
    else:
        raise AssertionError("a deleted job is still there")


def test_another_tenant_learns_nothing_from_what_is_remembered(
    http: httpx2.Client, gateway_url: str, service_settings: Settings
) -> None:
    path = post(http).json()["links"]["self"]
    etag = http.get(path).headers["etag"]
    assert http.get(path, headers={"If-None-Match": etag}).status_code == 304
    with connect(gateway_url, service_settings, "umbrella") as other:
        assert other.get(path, headers={"If-None-Match": etag}).status_code == 404


def test_far_from_its_limit_a_tenant_submits_side_by_side(
    http: httpx2.Client, service_settings: Settings
) -> None:
    """A transaction that is under way, and long, holds nobody up."""
    http.get("/v1/me")
    own = sync_engine(service_settings, "test-lock")
    with own.begin() as connection:
        connection.execute(text("SELECT 1 FROM tenants FOR NO KEY UPDATE"))
        connection.execute(text("SELECT 1 FROM api_keys FOR SHARE"))
        answers: list[int] = []
        thread = threading.Thread(target=lambda: answers.append(post(http).status_code))
        thread.start()
        thread.join(5)
        assert answers == [202]
    own.dispose()


async def test_tokens_are_taken_together_and_what_is_left_comes_back(valkey: Valkey) -> None:
    limiter = RateLimiter(valkey.url, PATIENCE)
    asked = 0
    take = limiter._take

    async def counting(**arguments: object) -> object:
        nonlocal asked
        asked += 1
        return await take(**arguments)

    limiter._take = counting  # type: ignore[assignment]
    full = [Bucket("key", new_id("key"), 6_000)]
    for _ in range(500):
        headers = await limiter.take(full)
    assert asked < 50, "a busy client asks Valkey for many at a time"
    left = int(headers["RateLimit"].split("r=")[1].split(";")[0])
    assert 5_500 <= left <= 5_999
    # A gateway that never comes back keeps a hundredth at most.
    other = RateLimiter(valkey.url, PATIENCE)
    headers = await other.take(full)
    assert int(headers["RateLimit"].split("r=")[1].split(";")[0]) >= 5_500 - 60 - 1
    await limiter.close()
    await other.close()


async def test_two_gateways_together_let_no_more_pass(valkey: Valkey) -> None:
    limiters = [RateLimiter(valkey.url, PATIENCE) for _ in range(2)]
    shared = [Bucket("key", new_id("key"), 600)]

    async def passes(limiter: RateLimiter) -> int:
        passed = 0
        for _ in range(700):
            with contextlib.suppress(RateLimited):
                await limiter.take(shared)
                passed += 1
        return passed

    began = asyncio.get_running_loop().time()
    passed = sum(await asyncio.gather(*map(passes, limiters)))
    refilled = 10 * (asyncio.get_running_loop().time() - began)
    assert 600 - 2 * 6 <= passed <= 600 + refilled + 1
    for limiter in limiters:
        await limiter.close()
