"""Who is calling, and what they may do."""

from __future__ import annotations

import time
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from app.problems import Forbidden, Unauthenticated
from app.services.notifications import JobNotifications
from infra.api_keys import is_wellformed, token_digest
from models.queries import accounts

_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="datassay"'}
#: Seconds that a key is remembered if nothing is heard of it, and how many keys are. So long at
#: most a revocation goes unnoticed where the connection that would tell of it died in silence.
_KEEP, _MOST = 5.0, 4096


@dataclass(frozen=True)
class Caller:
    """An authenticated API key."""

    key_id: str
    tenant_id: str
    scopes: frozenset[str]
    address: str | None = None
    request_id: str | None = None

    def require(self, scope: str) -> None:
        """Raise `Forbidden` without the scope; `admin` holds all."""
        if scope not in self.scopes and "admin" not in self.scopes:
            raise Forbidden(f"This API key does not hold the scope {scope}.")


@dataclass(frozen=True)
class _Known:
    """A key as it was read: at which count of changes, and until when that may be believed."""

    key_id: str
    tenant_id: str
    scopes: frozenset[str]
    until: float
    changes: int


class Authenticator:
    """Looks up API keys by their HMAC, and remembers them until the database tells of a change."""

    def __init__(
        self, sessions: async_sessionmaker[AsyncSession], secret: bytes, changes: JobNotifications
    ) -> None:
        self._sessions, self._secret, self._changes = sessions, secret, changes
        self._known: dict[bytes, _Known] = {}

    async def authenticate(
        self, token: str | None, address: str | None = None, request_id: str | None = None
    ) -> Caller:
        """The caller behind a bearer token. Raises `Unauthenticated`."""
        if token is None:
            raise Unauthenticated(
                "Send the API key as `Authorization: Bearer das_...`.", headers=_CHALLENGE
            )
        # The same answer and the same work for every kind of wrong key, but for typing errors.
        if not is_wellformed(token):
            raise Unauthenticated("The API key is unknown, expired or revoked.", headers=_CHALLENGE)
        digest = token_digest(self._secret, token)
        key = self._remembered(digest) or await self._look_up(digest)
        return Caller(key.key_id, key.tenant_id, key.scopes, address, request_id)

    def _remembered(self, digest: bytes) -> _Known | None:
        known = self._known.get(digest)
        fresh = (
            known is not None
            and known.changes == self._changes.keys
            and time.monotonic() < known.until
        )
        return known if fresh else None

    async def _look_up(self, digest: bytes) -> _Known:
        # Counted before reading: a change meanwhile makes the entry useless, not wrong.
        changes, now = self._changes.keys, time.monotonic()
        async with self._sessions() as session:
            row = (await session.execute(*accounts.key_by_digest(digest))).first()
            if row is None:
                raise Unauthenticated(
                    "The API key is unknown, expired or revoked.", headers=_CHALLENGE
                )
            if row.unseen:
                await session.execute(accounts.touch_key(row.id))
        # By the database's clock it has so many seconds left, whatever this machine's clock says.
        until = now + min(_KEEP, _KEEP if row.seconds_left is None else row.seconds_left)
        scopes = frozenset(row.scopes)
        known = _Known(row.id, row.tenant_id, scopes, until, -1 if changes is None else changes)
        if len(self._known) >= _MOST:
            self._known.clear()
        self._known[digest] = known
        return known
