"""Sends webhooks: many at a time, few to one endpoint, each signed, each through the guard.

Any number of senders may run; messages are taken with SKIP LOCKED under a lease of their own.
"""

from __future__ import annotations

import asyncio
import threading
from datetime import timedelta
from importlib.metadata import version
from typing import Any

import structlog
from sqlalchemy import Row
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, sessionmaker

from infra import metrics
from infra.settings import Settings
from infra.webhook_secrets import derive, signature
from models.queries import webhook_deliveries as sending
from outbound.guard import Guard, Refused, parse_url
from outbound.http import Unreachable, opened

_log = structlog.get_logger(__name__)

_AT_A_TIME = 32
_ANSWER_SECONDS = 15.0
#: Longer than any attempt: DNS may take its time before the limit of the answer begins.
_LEASE = timedelta(seconds=60)


class WebhookSender:
    """One loop over all messages that are due.

    Raises:
        ValueError: there is no secret to derive those of endpoints from.
    """

    def __init__(self, settings: Settings, sessions: sessionmaker[Session]) -> None:
        self._sessions, self._guard = sessions, Guard(settings.outbound_allow)
        self._secret = settings.require_secret()
        self._pause = settings.sweep_interval.total_seconds()
        self._agent = f"datassay/{version('datassay-server')}"

    def run(self, stop: threading.Event) -> None:
        """Send until told to stop, then let the attempts under way end."""
        asyncio.run(self._run(stop))

    def send_due(self) -> int:
        """Send what is due by now and return how many attempts that were."""

        async def once() -> int:
            rows = self._take(_AT_A_TIME)
            await asyncio.gather(*(self._deliver(row) for row in rows))
            return len(rows)

        return asyncio.run(once())

    async def _run(self, stop: threading.Event) -> None:
        under_way: set[asyncio.Task[None]] = set()
        while not stop.is_set():
            try:
                rows = await asyncio.to_thread(self._take, _AT_A_TIME - len(under_way))
            except DBAPIError as error:
                _log.warning("database unavailable; trying again", error=str(error).split("\n")[0])
                rows = []
            under_way |= {asyncio.create_task(self._deliver(row)) for row in rows}
            if not under_way:
                await asyncio.sleep(self._pause)
                continue
            _, under_way = await asyncio.wait(
                under_way, timeout=self._pause, return_when=asyncio.FIRST_COMPLETED
            )
        if under_way:
            await asyncio.wait(under_way)

    async def _deliver(self, row: Row[Any]) -> None:
        try:
            status, error = await self._post(row)
            if error is None and status is not None:
                conclusion = sending.delivered(row.id, row.attempts, status)
            else:
                conclusion = sending.failed(row.id, row.attempts, status, error or "")
            await asyncio.to_thread(self._conclude, row, conclusion, error)
        except DBAPIError as failure:
            # Nobody knows that it was sent: it goes out again, with the same id.
            _log.warning(
                "database unavailable; trying again",
                error=str(failure).split("\n")[0],
                delivery_id=row.id,
            )
        except Exception:  # noqa: BLE001 - the loop outlives any single message
            _log.exception("unexpected error while sending a webhook", delivery_id=row.id)

    async def _post(self, row: Row[Any]) -> tuple[int | None, str | None]:
        """The status, and why the attempt counts as failed (None: it does not)."""
        body, moment = row.payload.encode(), int(row.last_attempt_at.timestamp())
        salts = [salt for salt in (row.salt, row.old_salt) if salt is not None]
        keys = [derive(self._secret, row.endpoint_id, salt) for salt in salts]
        headers = {
            "Content-Type": "application/json",
            "User-Agent": self._agent,
            "webhook-id": row.id,
            "webhook-timestamp": str(moment),
            "webhook-signature": signature(keys, row.id, moment, body),
        }
        try:
            target = parse_url(row.url)
            async with (
                asyncio.timeout(_ANSWER_SECONDS),
                opened(self._guard, "POST", target, headers, body) as response,
            ):
                status = int(response.status)
        except Refused as error:
            return None, f"refused: {error} (rule: {error.rule})"
        except Unreachable as error:
            return None, str(error)
        except TimeoutError:
            return None, f"no answer within {_ANSWER_SECONDS:g} s"
        if 200 <= status < 300:
            return status, None
        moved = ": redirects are not followed" if 300 <= status < 400 else ""
        return status, f"the endpoint answered {status}{moved}"

    def _take(self, limit: int) -> list[Row[Any]]:
        if limit <= 0:
            return []
        with self._sessions.begin() as session:
            return list(session.execute(sending.take_due(limit, _LEASE)).all())

    def _conclude(self, row: Row[Any], conclusion: Any, error: str | None) -> None:
        metrics.WEBHOOK_ATTEMPTS.labels("delivered" if error is None else "failed").inc()
        with self._sessions.begin() as session:
            done = session.execute(conclusion).first()
        if done is not None and error is not None:
            _log.info("webhook not delivered", delivery_id=row.id, error=error, state=done.state)
