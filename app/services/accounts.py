"""Keys, usage and the audit trail of a tenant."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from app.problems import InvalidRequest, NotFound
from app.schemas.jobs import Usage
from app.services import paging
from app.services.audit import Audit
from app.services.auth import Caller
from app.services.notifications import JobNotifications
from app.services.quotas import Quotas
from infra.api_keys import hint, new_token, token_digest
from infra.ids import new_id
from models.queries import accounts, releases


class AccountService:
    """What a tenant may know of itself, and do about its keys."""

    def __init__(
        self,
        sessions: async_sessionmaker[AsyncSession],
        quotas: Quotas,
        audit: Audit,
        secret: bytes,
        changes: JobNotifications,
    ) -> None:
        self._sessions, self._quotas, self._audit = sessions, quotas, audit
        self._secret, self._changes = secret, changes

    async def usage(self, caller: Caller) -> Usage:
        """What the tenant takes up."""
        async with self._sessions.begin() as session:
            return await self._quotas.usage(session, caller)

    async def key(self, caller: Caller, key_id: str) -> Any:
        """One key, with the tenant's name. Raises `NotFound`."""
        async with self._sessions.begin() as session:
            return await _key(session, caller, key_id)

    async def keys(
        self, caller: Caller, limit: int, cursor: str | None
    ) -> tuple[list[Any], str | None]:
        """A page of keys, newest first, and the cursor of the next."""
        size = paging.page_size(limit)
        statement = accounts.keys_of(caller.tenant_id, size + 1, paging.decode(cursor))
        async with self._sessions.begin() as session:
            rows, following = paging.split((await session.execute(statement)).all(), size)
        return list(rows), following

    async def create_key(
        self, caller: Caller, name: str, scopes: Sequence[str], expires_in: float | None
    ) -> tuple[Any, str]:
        """A new key of the caller's tenant, and its token, which is stored nowhere."""
        token, key_id = new_token(), new_id("key")
        ends = None if expires_in is None else datetime.now(UTC) + timedelta(seconds=expires_in)
        row = {
            "id": key_id,
            "tenant_id": caller.tenant_id,
            "name": name,
            "hint": hint(token),
            "digest": token_digest(self._secret, token),
            "scopes": list(dict.fromkeys(scopes)),
            "expires_at": ends,
            "created_by": caller.key_id,
        }
        async with self._sessions.begin() as session:
            await session.execute(accounts.add_key(row))
            key = await _key(session, caller, key_id)
            await self._audit.record(session, caller, "key.create", key_id, after=key)
        return key, token

    async def revoke_key(self, caller: Caller, key_id: str) -> None:
        """End a key at once. Raises `NotFound`; a key that has ended already stays ended."""
        async with self._sessions.begin() as session:
            before = await _key(session, caller, key_id)
            revoked = accounts.revoke_key(key_id, caller.tenant_id)
            if (await session.execute(revoked)).first() is not None:
                await self._audit.record(session, caller, "key.revoke", key_id, before=before)
        self._changes.key_changed()

    async def audit(
        self, caller: Caller, limit: int, cursor: str | None
    ) -> tuple[list[Any], str | None]:
        """A page of the trail, newest first, and the cursor of the next."""
        return await self._page(accounts.audit, caller, limit, cursor)

    async def privacy_releases(
        self, caller: Caller, limit: int, cursor: str | None
    ) -> tuple[list[Any], str | None]:
        """A page of the ledger, newest first, and the cursor of the next."""
        return await self._page(releases.listed, caller, limit, cursor)

    async def _page(
        self,
        listed: Callable[[str, int, int | None], Any],
        caller: Caller,
        limit: int,
        cursor: str | None,
    ) -> tuple[list[Any], str | None]:
        """A page of rows by falling number, and the cursor of the next."""
        if cursor is not None and not (cursor.isdecimal() and len(cursor) < 19):
            raise InvalidRequest("The cursor is not one that this list gave.")
        size = paging.page_size(limit)
        before = None if cursor is None else int(cursor)
        statement = listed(caller.tenant_id, size + 1, before)
        async with self._sessions.begin() as session:
            rows = list((await session.execute(statement)).scalars().all())
        return rows[:size], str(rows[size - 1].id) if len(rows) > size else None


async def _key(session: AsyncSession, caller: Caller, key_id: str) -> Any:
    row = (await session.execute(accounts.key_of(caller.tenant_id, key_id))).first()
    if row is None:
        raise NotFound(f"There is no API key {key_id[:64]}.")
    return row
