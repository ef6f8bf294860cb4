"""The service that `datassay-server up` runs in a folder: its address and key without settings."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from datassay.errors import ConfigurationError

DEFAULT_FOLDER = ".datassay"
_SETTINGS = ("DATASSAY_URL", "DATASSAY_API_KEY", "DATASSAY_API_KEY_FILE")


def find(
    folder: str | None, environ: Mapping[str, str] | None = None
) -> tuple[str | None, str | None]:
    """Address and key of the service in a folder, both or neither: a key goes to no other address.

    Args:
        folder: Given by the user; None looks into `.datassay` here, unless settings name a service.

    Raises:
        ConfigurationError: The folder that the user gave has no service.
    """
    environ = os.environ if environ is None else environ
    if folder is None and any(environ.get(name) for name in _SETTINGS):
        return None, None
    place = Path(folder or DEFAULT_FOLDER)
    try:
        token = (place / "admin-key").read_text("utf-8").strip()
        url = (place / "address").read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        if folder is None:
            return None, None
        raise ConfigurationError(
            f"--data-dir {folder}: no service runs there ({error}); "
            "`datassay-server up --data-dir FOLDER` starts one"
        ) from error
    if folder is None and not _is_here(url):
        # The folder may have come with somebody's files; `--data-dir` says that it is meant.
        return None, None
    return url, token


def _is_here(url: str) -> bool:
    return urlsplit(url).hostname in ("127.0.0.1", "::1", "localhost")
