"""The service that `datassay-server up` runs in a folder: its address and key without settings."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from datassay.errors import ConfigurationError

DEFAULT_FOLDER = ".datassay"
_SETTINGS = ("DATASSAY_URL", "DATASSAY_API_KEY", "DATASSAY_API_KEY_FILE")


def find(
    folder: str | None, environ: Mapping[str, str] | None = None
) -> tuple[str | None, str | None]:
    """Address and key of the service in a folder; None for what it does not say.

    Args:
        folder: Given by the user; None looks into `.datassay` here, unless settings name a service.

    Raises:
        ConfigurationError: The folder that the user gave has no service.
    """
    environ = os.environ if environ is None else environ
    if folder is None and any(environ.get(name) for name in _SETTINGS):
        return None, None
    place = Path(folder or DEFAULT_FOLDER)
    key, address = place / "admin-key", place / "address"
    try:
        token = key.read_text("utf-8").strip()
        url = address.read_text("utf-8").strip() if address.is_file() else None
    except (OSError, UnicodeDecodeError) as error:
        if folder is None:
            return None, None
        raise ConfigurationError(
            f"--data-dir {folder}: no service was started there ({key}: {error}); "
            "`datassay-server up --data-dir FOLDER` starts one"
        ) from error
    return url, token
