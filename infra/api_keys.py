"""API keys: how they look, how they are stored, how they are made."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import string
import zlib

_BASE62 = string.digits + string.ascii_uppercase + string.ascii_lowercase
_PREFIX = "das_live_"
_RANDOM, _CHECK = 37, 6

SCOPES = (
    "jobs:read",
    "jobs:write",
    "jobs:delete",
    "files:read",
    "files:write",
    "usage:read",
    "webhooks:read",
    "webhooks:write",
    "admin",
)


def new_token() -> str:
    """A token of 220 random bits with a checksum, so that leaks and typos show offline."""
    body = "".join(secrets.choice(_BASE62) for _ in range(_RANDOM))
    return f"{_PREFIX}{body}{_checksum(_PREFIX + body)}"


def is_wellformed(token: str) -> bool:
    """Whether prefix, length and checksum fit; says nothing of whether the key exists."""
    if len(token) != len(_PREFIX) + _RANDOM + _CHECK or not token.startswith(_PREFIX):
        return False
    if not token.isascii():
        return False
    return hmac.compare_digest(token[-_CHECK:], _checksum(token[:-_CHECK]))


def token_digest(secret: bytes, token: str) -> bytes:
    """What the database keeps. A slow hash would only serve attackers: the token is random."""
    return hmac.new(secret, token.encode(), hashlib.sha256).digest()


def hint(token: str) -> str:
    """Enough of a token to recognise it in a list."""
    return f"{token[: len(_PREFIX) + 4]}…"


def _checksum(text: str) -> str:
    value, digits = zlib.crc32(text.encode()), ""
    for _ in range(_CHECK):
        value, rest = divmod(value, 62)
        digits = _BASE62[rest] + digits
    return digits
