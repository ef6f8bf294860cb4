"""Webhook endpoints and what is sent to them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from app.problems import Conflict, InvalidSpec, NotFound
from app.schemas.jobs import FieldError
from app.services import paging
from app.services.audit import Audit
from app.services.auth import Caller
from infra.ids import is_id, new_id
from infra.webhook_secrets import derive, new_salt, shown
from models.queries import webhooks
from outbound.guard import Guard, Refused, parse_url

_RESOLVE_SECONDS = 5.0


class WebhookService:
    """Everything that the API does with webhooks; the sweeper sends them."""

    def __init__(
        self,
        sessions: async_sessionmaker[AsyncSession],
        secret: bytes,
        guard: Guard,
        audit: Audit,
    ) -> None:
        self._sessions, self._secret = sessions, secret
        self._guard, self._audit = guard, audit

    async def create(self, caller: Caller, fields: Mapping[str, Any]) -> tuple[Any, str]:
        """A new endpoint and its secret, which nobody gets to see again.

        Raises:
            InvalidSpec: the URL is not allowed.
            Conflict: the tenant has as many endpoints as it may.
        """
        url = await self._checked(fields["url"])
        row = {**fields, "url": url, "id": new_id("whe"), "salt": new_salt()}
        row["tenant_id"] = caller.tenant_id
        async with self._sessions.begin() as session:
            await session.execute(webhooks.lock_tenant(caller.tenant_id))
            count = (await session.execute(webhooks.count_endpoints(caller.tenant_id))).scalar_one()
            if count >= webhooks.MAX_ENDPOINTS:
                raise Conflict(f"There are {count} webhook endpoints, which is the limit.")
            endpoint = (await session.execute(webhooks.add_endpoint(row))).scalar_one()
            await self._audit.record(session, caller, "webhook.create", endpoint.id, after=endpoint)
        return endpoint, self._shown(endpoint)

    async def page(
        self, caller: Caller, limit: int, cursor: str | None
    ) -> tuple[list[Any], str | None]:
        """A page of endpoints, newest first."""
        size = paging.page_size(limit)
        statement = webhooks.endpoints(caller.tenant_id, size + 1, paging.decode(cursor))
        return await self._paged(statement, size)

    async def get(self, caller: Caller, endpoint_id: str) -> Any:
        """One endpoint. Raises `NotFound`."""
        return await self._one(webhooks.endpoint(caller.tenant_id, endpoint_id), endpoint_id)

    async def change(self, caller: Caller, endpoint_id: str, changes: Mapping[str, Any]) -> Any:
        """Change an endpoint. Raises `InvalidSpec` for the URL, `NotFound`."""
        if not changes:
            return await self.get(caller, endpoint_id)
        values = dict(changes)
        if "url" in values:
            values["url"] = await self._checked(values["url"])
        if values.get("state") == webhooks.DISABLED:
            values["disabled_reason"] = "by its owner"
        statement = webhooks.change_endpoint(caller.tenant_id, endpoint_id, values)
        return await self._write(caller, "webhook.change", endpoint_id, statement)

    async def rotate(self, caller: Caller, endpoint_id: str, overlap: float) -> tuple[Any, str]:
        """A new secret; the old one signs too until the overlap (seconds) ends."""
        statement = webhooks.rotate_secret(
            caller.tenant_id, endpoint_id, new_salt(), timedelta(seconds=overlap)
        )
        endpoint = await self._write(caller, "webhook.rotate", endpoint_id, statement)
        return endpoint, self._shown(endpoint)

    async def delete(self, caller: Caller, endpoint_id: str) -> None:
        """Delete an endpoint and its deliveries. Raises `NotFound`."""
        deliveries, endpoint = webhooks.delete_endpoint(caller.tenant_id, endpoint_id)
        async with self._sessions.begin() as session:
            await session.execute(deliveries)
            before = (await session.execute(endpoint)).scalar_one_or_none()
            if before is None:
                raise _missing(endpoint_id)
            await self._audit.record(session, caller, "webhook.delete", endpoint_id, before)

    async def test(self, caller: Caller, endpoint_id: str) -> Any:
        """Send a test message. Raises `Conflict` when the endpoint is disabled, `NotFound`."""
        await self._active(caller, endpoint_id)
        return await self._one(webhooks.add_test(caller.tenant_id, endpoint_id), endpoint_id)

    async def deliveries(
        self, caller: Caller, endpoint_id: str, limit: int, cursor: str | None, state: str | None
    ) -> tuple[list[Any], str | None]:
        """A page of deliveries, newest first. Raises `NotFound`."""
        await self.get(caller, endpoint_id)
        size = paging.page_size(limit)
        after = paging.decode(cursor)
        statement = webhooks.deliveries(caller.tenant_id, endpoint_id, size + 1, after, state)
        return await self._paged(statement, size)

    async def replay(self, caller: Caller, endpoint_id: str, delivery_id: str) -> Any:
        """Send a message again. Raises `Conflict` when the endpoint is disabled, `NotFound`."""
        await self._active(caller, endpoint_id)
        if not is_id(delivery_id, "msg"):
            raise _missing(delivery_id)
        statement = webhooks.replay(caller.tenant_id, endpoint_id, delivery_id)
        return await self._one(statement, delivery_id)

    async def _active(self, caller: Caller, endpoint_id: str) -> None:
        endpoint = await self.get(caller, endpoint_id)
        if endpoint.state != webhooks.ACTIVE:
            raise Conflict(f"{endpoint_id} is disabled: {endpoint.disabled_reason}.")

    async def _checked(self, url: str) -> str:
        try:
            target = parse_url(url)
            async with asyncio.timeout(_RESOLVE_SECONDS):
                await asyncio.to_thread(self._guard.check, target)
        except (Refused, TimeoutError) as error:
            rule = error.rule if isinstance(error, Refused) else "address"
            text = f"{error or 'the host does not resolve'} (rule: {rule})"
            raise InvalidSpec(
                f"/url: {text}", errors=[FieldError(pointer="/url", message=text)]
            ) from error
        return target.url

    async def _write(self, caller: Caller, action: str, endpoint_id: str, statement: Any) -> Any:
        async with self._sessions.begin() as session:
            present = webhooks.endpoint(caller.tenant_id, endpoint_id)
            before = (await session.execute(present)).scalar_one_or_none()
            if before is None:
                raise _missing(endpoint_id)
            session.expunge(before)  # or it would be brought up to date by what follows
            after = (await session.execute(statement)).scalar_one()
            await self._audit.record(session, caller, action, endpoint_id, before, after)
        return after

    async def _one(self, statement: Any, name: str) -> Any:
        async with self._sessions.begin() as session:
            row = (await session.execute(statement)).scalar_one_or_none()
        if row is None:
            raise _missing(name)
        return row

    async def _paged(self, statement: Any, size: int) -> tuple[list[Any], str | None]:
        async with self._sessions.begin() as session:
            rows = (await session.execute(statement)).scalars().all()
        page, following = paging.split(rows, size)
        return list(page), following

    def _shown(self, endpoint: Any) -> str:
        return shown(derive(self._secret, endpoint.id, endpoint.salt))


def _missing(name: str) -> NotFound:
    return NotFound(f"There is no webhook endpoint or delivery {name[:64]}.")
