"""The requests about webhooks; `datassay.calls` says what a call is.

Those that make something are not repeated: the service keeps Idempotency-Keys for jobs only.
"""

from __future__ import annotations

from typing import TypedDict
from urllib.parse import quote

from datassay.calls import Call

_ROOT = "/v1/webhook-endpoints"


class EndpointChange(TypedDict, total=False):
    """What to change of an endpoint.

    Keys:
        url: A public https URL.
        events: Which events to send, such as ["job.failed"].
        description: For people.
        state: "DISABLED", or "ACTIVE" to enable it again.
    """

    url: str
    events: list[str]
    description: str
    state: str


def create(url: str, events: list[str] | None, description: str) -> Call:
    """Register a URL."""
    body = {"url": url, "description": description} | ({"events": events} if events else {})
    return Call("POST", _ROOT, json=body, retry=False)


def list_all() -> Call:
    """List endpoints, newest first."""
    return Call("GET", _ROOT)


def get(endpoint_id: str) -> Call:
    """One endpoint."""
    return Call("GET", _path(endpoint_id))


def change(endpoint_id: str, changes: EndpointChange) -> Call:
    """Change an endpoint."""
    return Call("PATCH", _path(endpoint_id), json=dict(changes))


def delete(endpoint_id: str) -> Call:
    """Delete an endpoint."""
    return Call("DELETE", _path(endpoint_id))


def rotate_secret(endpoint_id: str, overlap: float) -> Call:
    """A new secret."""
    path, body = f"{_path(endpoint_id)}/rotate-secret", {"overlap_seconds": overlap}
    return Call("POST", path, json=body, retry=False)


def test(endpoint_id: str) -> Call:
    """Send a test message."""
    return Call("POST", f"{_path(endpoint_id)}/test", retry=False)


def deliveries(endpoint_id: str, state: str | None) -> Call:
    """What was sent."""
    return Call("GET", f"{_path(endpoint_id)}/deliveries", params={"state": state} if state else {})


def replay(endpoint_id: str, delivery_id: str) -> Call:
    """Send a message again."""
    path = f"{_path(endpoint_id)}/deliveries/{quote(delivery_id, safe='')}/replay"
    return Call("POST", path)


def _path(endpoint_id: str) -> str:
    if not endpoint_id:
        raise ValueError("an id must not be empty")
    return f"{_ROOT}/{quote(endpoint_id, safe='')}"
