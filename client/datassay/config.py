"""Where the service is and who asks, from arguments or the environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx2

from datassay._version import __version__
from datassay.errors import ConfigurationError

DEFAULT_URL = "http://127.0.0.1:8765"

#: Seconds without a byte from the server; long-polls add the time the server may hold them.
DEFAULT_TIMEOUT = 30.0
DEFAULT_MAX_RETRIES = 4


@dataclass(frozen=True, slots=True)
class Config:
    """A resolved address and key.

    Attributes:
        base_url: Root of the service without a trailing slash.
        api_key: Bearer token, or None to send requests without authentication.
        timeout: Seconds without a byte from the server before a request counts as failed.
    """

    base_url: str
    api_key: str | None
    timeout: float

    @classmethod
    def resolve(
        cls,
        base_url: str | None,
        api_key: str | None,
        timeout: float,
        environ: Mapping[str, str] | None = None,
    ) -> Config:
        """Fill what is None from DATASSAY_URL, DATASSAY_API_KEY and DATASSAY_API_KEY_FILE.

        Raises:
            ConfigurationError: The URL is not http(s), or the key file cannot be read.
        """
        environ = os.environ if environ is None else environ
        url = base_url or environ.get("DATASSAY_URL") or DEFAULT_URL
        key = api_key or environ.get("DATASSAY_API_KEY") or _key_from_file(environ)
        if key is not None and not (key.isascii() and key.isprintable()):
            # An HTTP library would fail much later, with a message about header encodings.
            raise ConfigurationError("the API key holds characters that no key has")
        return cls(_checked(url), key, timeout)

    def headers(self) -> dict[str, str]:
        """Headers of every request."""
        headers = {"User-Agent": f"datassay-python/{__version__}", "Accept": "application/json"}
        if self.api_key is not None:
            headers["Authorization"] = f"Bearer {self.api_key}"
        return headers


def _checked(url: str) -> str:
    try:
        parsed = httpx2.URL(url)
    except httpx2.InvalidURL as error:
        raise ConfigurationError(f"not a URL: {url!r} ({error})") from error
    if parsed.scheme not in {"http", "https"} or not parsed.host:
        raise ConfigurationError(f"not an http or https URL: {url!r}")
    return url.rstrip("/")


def _key_from_file(environ: Mapping[str, str]) -> str | None:
    path = environ.get("DATASSAY_API_KEY_FILE")
    if not path:
        return None
    try:
        return Path(path).read_text(encoding="utf-8").strip() or None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"cannot read DATASSAY_API_KEY_FILE {path!r}: {error}") from error
