"""Webhooks: endpoints that are notified when jobs end, and what was sent to them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, FastAPI, Query

from app.api.dependencies import (
    Cursor,
    EndpointId,
    Limit,
    ServicesDep,
    WebhooksRead,
    WebhooksWrite,
)
from app.problems import (
    Conflict,
    Forbidden,
    InvalidRequest,
    InvalidSpec,
    NotFound,
    Unauthenticated,
    responses,
)
from app.schemas.jobs import Page
from app.schemas.webhooks import (
    NewWebhookEndpoint,
    SecretRotation,
    WebhookChange,
    WebhookCreate,
    WebhookDelivery,
    WebhookEndpoint,
    WebhookMessage,
)

_ALWAYS = (Unauthenticated, Forbidden)

DeliveryState = Literal["PENDING", "DELIVERED", "FAILED"]


def create_router() -> APIRouter:
    """The routes of webhooks."""
    router = APIRouter(prefix="/v1/webhook-endpoints", tags=["webhooks"])
    add = router.add_api_route
    one = responses(*_ALWAYS, NotFound)
    written = responses(InvalidRequest, *_ALWAYS, Conflict, InvalidSpec)
    add("", create_webhook_endpoint, methods=["POST"], status_code=201, responses=written)
    paged = responses(InvalidRequest, *_ALWAYS)
    add("", list_webhook_endpoints, methods=["GET"], responses=paged)
    add("/{endpoint_id}", get_webhook_endpoint, methods=["GET"], responses=one)
    changed = responses(InvalidRequest, *_ALWAYS, NotFound, InvalidSpec)
    add("/{endpoint_id}", change_webhook_endpoint, methods=["PATCH"], responses=changed)
    add(
        "/{endpoint_id}",
        delete_webhook_endpoint,
        methods=["DELETE"],
        status_code=204,
        responses=one,
    )
    add("/{endpoint_id}/rotate-secret", rotate_webhook_secret, methods=["POST"], responses=changed)
    sent = responses(*_ALWAYS, NotFound, Conflict)
    add(
        "/{endpoint_id}/test",
        test_webhook_endpoint,
        methods=["POST"],
        status_code=202,
        responses=sent,
    )
    add(
        "/{endpoint_id}/deliveries",
        list_webhook_deliveries,
        methods=["GET"],
        responses=responses(InvalidRequest, *_ALWAYS, NotFound),
    )
    add(
        "/{endpoint_id}/deliveries/{delivery_id}/replay",
        replay_webhook_delivery,
        methods=["POST"],
        status_code=202,
        responses=sent,
    )
    return router


def declare_webhooks(app: FastAPI) -> None:
    """What receivers get, for the `webhooks` section of the OpenAPI document."""

    @app.webhooks.post("job-ended", name="job_ended", status_code=204)
    def job_ended(body: WebhookMessage) -> None:
        """Sent when a job has ended; verify the signature (Standard Webhooks), answer 2xx."""


async def create_webhook_endpoint(
    request: WebhookCreate, caller: WebhooksWrite, services: ServicesDep
) -> NewWebhookEndpoint:
    """Register a URL; the answer holds the secret, this once."""
    row, secret = await services.webhooks.create(caller, request.model_dump())
    return _new(row, secret)


async def list_webhook_endpoints(
    caller: WebhooksRead, services: ServicesDep, limit: Limit = 50, cursor: Cursor = None
) -> Page[WebhookEndpoint]:
    """Your endpoints, newest first."""
    rows, following = await services.webhooks.page(caller, limit, cursor)
    items = [WebhookEndpoint.model_validate(row) for row in rows]
    return Page(items=items, next_cursor=following)


async def get_webhook_endpoint(
    endpoint_id: EndpointId, caller: WebhooksRead, services: ServicesDep
) -> WebhookEndpoint:
    """One endpoint."""
    return WebhookEndpoint.model_validate(await services.webhooks.get(caller, endpoint_id))


async def change_webhook_endpoint(
    endpoint_id: EndpointId, request: WebhookChange, caller: WebhooksWrite, services: ServicesDep
) -> WebhookEndpoint:
    """Change the fields of the body; `"state": "ACTIVE"` enables an endpoint again."""
    changes = request.model_dump(exclude_unset=True, exclude_none=True)
    row = await services.webhooks.change(caller, endpoint_id, changes)
    return WebhookEndpoint.model_validate(row)


async def delete_webhook_endpoint(
    endpoint_id: EndpointId, caller: WebhooksWrite, services: ServicesDep
) -> None:
    """Delete an endpoint with all its deliveries."""
    await services.webhooks.delete(caller, endpoint_id)


async def rotate_webhook_secret(
    endpoint_id: EndpointId,
    caller: WebhooksWrite,
    services: ServicesDep,
    request: SecretRotation = SecretRotation(),  # noqa: B008 - a body that may be left out
) -> NewWebhookEndpoint:
    """Make a new secret; during the overlap messages carry a signature of each."""
    row, secret = await services.webhooks.rotate(caller, endpoint_id, request.overlap_seconds)
    return _new(row, secret)


async def test_webhook_endpoint(
    endpoint_id: EndpointId, caller: WebhooksWrite, services: ServicesDep
) -> WebhookDelivery:
    """Send a message of type `webhook.test`; the list of deliveries shows what became of it."""
    return WebhookDelivery.model_validate(await services.webhooks.test(caller, endpoint_id))


async def list_webhook_deliveries(
    endpoint_id: EndpointId,
    caller: WebhooksRead,
    services: ServicesDep,
    state: Annotated[DeliveryState | None, Query(description="Only these.")] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[WebhookDelivery]:
    """What was sent and what will be, newest first."""
    rows, following = await services.webhooks.deliveries(caller, endpoint_id, limit, cursor, state)
    items = [WebhookDelivery.model_validate(row) for row in rows]
    return Page(items=items, next_cursor=following)


async def replay_webhook_delivery(
    endpoint_id: EndpointId, delivery_id: str, caller: WebhooksWrite, services: ServicesDep
) -> WebhookDelivery:
    """Send a message again, with the same `webhook-id` and a fresh signature."""
    row = await services.webhooks.replay(caller, endpoint_id, delivery_id)
    return WebhookDelivery.model_validate(row)


def _new(row: Any, secret: str) -> NewWebhookEndpoint:
    shown = WebhookEndpoint.model_validate(row)
    return NewWebhookEndpoint(**shown.model_dump(), secret=secret)
