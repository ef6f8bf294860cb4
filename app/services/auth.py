"""Who is calling, and what they may do."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from app.problems import Forbidden, Unauthenticated
from models import accounts
from models.api_keys import is_wellformed, token_digest

_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="datassay"'}
_TOUCH_EVERY = timedelta(minutes=1)


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


class Authenticator:
    """Looks up API keys by their HMAC."""

    def __init__(self, sessions: async_sessionmaker[AsyncSession], secret: bytes) -> None:
        self._sessions, self._secret = sessions, secret

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
            raise Unauthenticated("This is no API key of this service.", headers=_CHALLENGE)
        digest = token_digest(self._secret, token)
        async with self._sessions() as session:
            # One statement needs no BEGIN and COMMIT around it; every request comes through here.
            await session.connection(execution_options={"isolation_level": "AUTOCOMMIT"})
            row = (await session.execute(accounts.key_by_digest(digest))).first()
            if row is None:
                raise Unauthenticated(
                    "The API key is unknown, expired or revoked.", headers=_CHALLENGE
                )
            last_used = row.last_used_at
            if last_used is None or last_used < datetime.now(UTC) - _TOUCH_EVERY:
                await session.execute(accounts.touch_key(row.id))
        return Caller(row.id, row.tenant_id, frozenset(row.scopes), address, request_id)
