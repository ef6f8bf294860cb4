"""Webhook endpoints over the sync client; `datassay.async_webhooks` is the twin."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar, Unpack

from pydantic import BaseModel

from datassay import webhook_calls
from datassay.calls import Call
from datassay.models import WebhookDelivery, WebhookEndpoint
from datassay.transport import Transport
from datassay.webhook_calls import EndpointChange

M = TypeVar("M", bound=BaseModel)


class Webhooks:
    """`client.webhooks`: URLs notified when jobs end. `verify_webhook` is for receivers."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(
        self, url: str, *, events: list[str] | None = None, description: str = ""
    ) -> WebhookEndpoint:
        """Register a URL; keep the `secret` of what comes back, it is not shown again.

        Args:
            url: Public, https, on port 443 or 8443.
            events: "job.succeeded", "job.failed", "job.cancelled", "job.expired"; default: all.

        Raises:
            InvalidSpec: The URL is not allowed; the text says by which rule.
        """
        return self._fetch(webhook_calls.create(url, events, description), WebhookEndpoint)

    def list(self, *, limit: int | None = None) -> Iterator[WebhookEndpoint]:
        """Endpoints, newest first, at most `limit`."""
        return self._transport.pages(webhook_calls.list_all(), WebhookEndpoint, limit)

    def get(self, id: str) -> WebhookEndpoint:  # noqa: A002
        """The endpoint called `id`."""
        return self._fetch(webhook_calls.get(id), WebhookEndpoint)

    def change(self, id: str, **changes: Unpack[EndpointChange]) -> WebhookEndpoint:  # noqa: A002
        """Change what is given; see `EndpointChange`."""
        return self._fetch(webhook_calls.change(id, changes), WebhookEndpoint)

    def delete(self, id: str) -> None:  # noqa: A002
        """Delete an endpoint and its deliveries."""
        self._transport.run(self._transport.operations.send(webhook_calls.delete(id)))

    def rotate_secret(self, id: str, *, overlap: float = 86400.0) -> WebhookEndpoint:  # noqa: A002
        """A new `secret`; for `overlap` seconds messages are signed with the old one too."""
        return self._fetch(webhook_calls.rotate_secret(id, overlap), WebhookEndpoint)

    def test(self, id: str) -> WebhookDelivery:  # noqa: A002
        """Send a message of type "webhook.test"."""
        return self._fetch(webhook_calls.test(id), WebhookDelivery)

    def deliveries(
        self,
        id: str,  # noqa: A002
        *,
        state: str | None = None,
        limit: int | None = None,
    ) -> Iterator[WebhookDelivery]:
        """What was sent and what will be, newest first; `state` narrows to e.g. "FAILED"."""
        call = webhook_calls.deliveries(id, state)
        return self._transport.pages(call, WebhookDelivery, limit)

    def replay(self, id: str, delivery_id: str) -> WebhookDelivery:  # noqa: A002
        """Send a message again, with the same `webhook-id`."""
        return self._fetch(webhook_calls.replay(id, delivery_id), WebhookDelivery)

    def _fetch(self, call: Call, model: type[M]) -> M:
        return self._transport.run(self._transport.operations.fetch(call, model))
