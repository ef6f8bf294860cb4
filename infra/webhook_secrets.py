"""Secrets and signatures of webhooks, by Standard Webhooks (version 1, HMAC-SHA256).

A secret is derived from the service's own (DATASSAY_SECRET) and a salt that is stored with the
endpoint: who reads the database cannot sign, and the API has nothing to show after the first time.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Iterable


def new_salt() -> str:
    """A fresh salt, which makes a fresh secret."""
    return secrets.token_hex(16)


def derive(service_secret: bytes, endpoint_id: str, salt: str) -> bytes:
    """The 32 bytes that an endpoint's messages are signed with."""
    return hmac.new(service_secret, f"webhook:{endpoint_id}:{salt}".encode(), "sha256").digest()


def shown(secret: bytes) -> str:
    """A secret as its owner gets to see it, once: `whsec_...`."""
    return f"whsec_{base64.b64encode(secret).decode()}"


def signature(keys: Iterable[bytes], message_id: str, timestamp: int, body: bytes) -> str:
    """The header `webhook-signature`: one `v1,...` for each secret that is valid at the moment."""
    signed = f"{message_id}.{timestamp}.".encode() + body
    return " ".join(
        f"v1,{base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()}"
        for key in keys
    )
