"""Whether a webhook really comes from the service (Standard Webhooks, HMAC-SHA256)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import time
from collections.abc import Iterable, Mapping

from pydantic import ValidationError

from datassay.errors import WebhookVerificationFailed
from datassay.models import WebhookMessage

_PREFIX = "whsec_"


def verify_webhook(
    body: bytes | str,
    headers: Mapping[str, str],
    secret: str | Iterable[str],
    *,
    tolerance: float = 300.0,
    now: float | None = None,
) -> WebhookMessage:
    """Check the signature of a message and return it parsed.

    Args:
        body: The request's body as it came, not parsed and written anew.
        headers: The request's headers, in any case.
        secret: `whsec_...`; several while you change from one to the next.
        tolerance: Seconds that the message may be older or newer than now, against replays.
            `webhook-id` is the same over all attempts: remember it to act on a message once.
        now: Seconds since 1970; default: the clock.

    Raises:
        WebhookVerificationFailed: A header is missing, the time is off, no signature fits, or the
            body is no message of this service.
        ValueError: A secret is malformed.
    """
    data = body.encode() if isinstance(body, str) else body
    lower = {name.lower(): value for name, value in headers.items()}
    try:
        message_id, timestamp = lower["webhook-id"], lower["webhook-timestamp"]
        signatures = lower["webhook-signature"].split()
    except KeyError as error:
        raise WebhookVerificationFailed(f"the header {error.args[0]} is missing") from None
    if not (timestamp.isascii() and timestamp.isdecimal()):
        raise WebhookVerificationFailed("the timestamp is no number")
    if abs((time.time() if now is None else now) - int(timestamp[:20])) > tolerance:
        raise WebhookVerificationFailed("the message is too old, or from the future")
    signed = f"{message_id}.{timestamp}.".encode() + data
    candidates = [_decoded(text[3:]) for text in signatures if text.startswith("v1,")]
    keys = [_key(text) for text in ([secret] if isinstance(secret, str) else secret)]
    fits = False
    for key in keys:
        expected = hmac.new(key, signed, hashlib.sha256).digest()
        for signature in candidates:
            fits |= hmac.compare_digest(expected, signature)
    if not fits:
        raise WebhookVerificationFailed("no signature fits")
    try:
        return WebhookMessage.model_validate_json(data)
    except ValidationError as error:
        raise WebhookVerificationFailed("the body is no message of this service") from error


def _key(secret: str) -> bytes:
    try:
        key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError("a webhook secret is whsec_ and base64") from error
    if not key:
        raise ValueError("the webhook secret is empty")
    return key


def _decoded(signature: str) -> bytes:
    try:
        return base64.b64decode(signature, validate=True)
    except (binascii.Error, ValueError):
        return b""
