"""Webhook endpoints over the async client; `datassay.webhooks` is the twin and says more."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TypeVar, Unpack

from pydantic import BaseModel

from datassay import webhook_calls
from datassay.calls import Call
from datassay.models import WebhookDelivery, WebhookEndpoint
from datassay.transport import AsyncTransport
from datassay.webhook_calls import EndpointChange

M = TypeVar("M", bound=BaseModel)


class AsyncWebhooks:
    """`client.webhooks` of the async client."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def create(
        self, url: str, *, events: list[str] | None = None, description: str = ""
    ) -> WebhookEndpoint:
        """Register a URL; arguments and exceptions are those of `Webhooks.create`."""
        return await self._fetch(webhook_calls.create(url, events, description), WebhookEndpoint)

    def list(self, *, limit: int | None = None) -> AsyncIterator[WebhookEndpoint]:
        """Endpoints, newest first, at most `limit`."""
        return self._transport.pages(webhook_calls.list_all(), WebhookEndpoint, limit)

    async def get(self, id: str) -> WebhookEndpoint:  # noqa: A002
        """The endpoint called `id`."""
        return await self._fetch(webhook_calls.get(id), WebhookEndpoint)

    async def change(self, id: str, **changes: Unpack[EndpointChange]) -> WebhookEndpoint:  # noqa: A002
        """Change what is given; see `EndpointChange`."""
        return await self._fetch(webhook_calls.change(id, changes), WebhookEndpoint)

    async def delete(self, id: str) -> None:  # noqa: A002
        """Delete an endpoint and its deliveries."""
        await self._transport.run(self._transport.operations.send(webhook_calls.delete(id)))

    async def rotate_secret(self, id: str, *, overlap: float = 86400.0) -> WebhookEndpoint:  # noqa: A002
        """A new `secret`; for `overlap` seconds messages are signed with the old one too."""
        return await self._fetch(webhook_calls.rotate_secret(id, overlap), WebhookEndpoint)

    async def test(self, id: str) -> WebhookDelivery:  # noqa: A002
        """Send a message of type "webhook.test"."""
        return await self._fetch(webhook_calls.test(id), WebhookDelivery)

    def deliveries(
        self,
        id: str,  # noqa: A002
        *,
        state: str | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[WebhookDelivery]:
        """What was sent and what will be, newest first; `state` narrows to e.g. "FAILED"."""
        call = webhook_calls.deliveries(id, state)
        return self._transport.pages(call, WebhookDelivery, limit)

    async def replay(self, id: str, delivery_id: str) -> WebhookDelivery:  # noqa: A002
        """Send a message again, with the same `webhook-id`."""
        return await self._fetch(webhook_calls.replay(id, delivery_id), WebhookDelivery)

    async def _fetch(self, call: Call, model: type[M]) -> M:
        return await self._transport.run(self._transport.operations.fetch(call, model))
