"""Fetches inputs that are named by URI: in the worker's own process, within limits."""

from __future__ import annotations

import asyncio
import hashlib
import importlib
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, cast
from urllib.parse import unquote

from infra.outbound_settings import Credential
from infra.settings import Settings
from infra.storage import CHUNK
from methods.errors import Interrupted, JobError
from outbound.guard import Guard, Refused, parse_url
from outbound.input_sources import Sources, split_digest

_CHECK_SECONDS = 0.2
_PACKAGES = {"s3": "s3fs", "hf": "huggingface_hub"}


class Fetcher:
    """Copies the bytes behind a URI into a file of the attempt."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._guard, self._sources = Guard(settings.outbound_allow), Sources.of(settings)
        self._sources.require_credentials()

    def fetch(self, tenant: str, reference: str, target: Path, check: Callable[[], None]) -> str:
        """Write the bytes to `target` and return their SHA-256.

        Args:
            tenant: its name; the allow-list is asked again, it may have changed since the POST.
            check: called at least five times a second; what it raises ends the transfer.

        Raises:
            JobError: `input_unreadable` (retryable where another attempt may help), `too_large`,
                `input_changed` when a digest was asked for and is not met.
        """
        try:
            credential = self._sources.check(tenant, reference)
            uri, expected = split_digest(reference)
            with target.open("wb") as file:
                copy = _Copy(file, self._settings, check)
                scheme = uri.partition("://")[0]
                if scheme in ("https", "http"):
                    self._http(uri, credential, copy)
                elif scheme == "file":
                    self._file(uri, copy)
                else:
                    self._object(uri, credential, copy)
        except Refused as error:
            message = f"{reference[:200]}: {error} (rule: {error.rule})"
            details = {"uri": reference, "rule": error.rule}
            raise JobError("input_unreadable", message, details=details) from error
        if expected not in (None, copy.sha256):
            raise JobError("input_changed", f"{uri[:200]}: its SHA-256 is {copy.sha256}")
        return copy.sha256

    def _http(self, uri: str, credential: Credential, copy: _Copy) -> None:
        from outbound.http import TooLarge, Unreachable, download

        async def run() -> int:
            transfer = asyncio.create_task(
                download(
                    self._guard,
                    parse_url(uri),
                    credential.header_values(),
                    copy.write,
                    copy.limit,
                )
            )
            try:
                while not (await asyncio.wait({transfer}, timeout=_CHECK_SECONDS))[0]:
                    copy.check()
                return await transfer
            finally:
                transfer.cancel()
                await asyncio.gather(transfer, return_exceptions=True)

        try:
            with asyncio.Runner() as runner:
                status = runner.run(run())
        except Unreachable as error:
            raise JobError("input_unreadable", str(error), retryable=True) from error
        except TooLarge as error:
            raise copy.too_large() from error
        if status != 200:
            text = f"{uri[:200]}: the server answers {status}"
            raise JobError("input_unreadable", text, retryable=_passing(status))

    def _file(self, uri: str, copy: _Copy) -> None:
        root = self._settings.input_root
        assert root is not None, "the sources refuse file:// without a root"
        host, _, path = uri.removeprefix("file://").partition("/")
        relative = os.path.relpath(f"/{unquote(path)}", root.resolve())
        if host or relative.split("/")[0] == "..":
            raise Refused("source", f"file:// is read below {root.resolve()} only")
        try:
            with _open_beneath(root.resolve(), relative) as reader:
                copy.take(reader)
        except OSError as error:
            text = f"{uri[:200]}: {error.strerror or error}"
            raise JobError("input_unreadable", text) from error

    def _object(self, uri: str, credential: Credential, copy: _Copy) -> None:
        scheme, _, path = uri.partition("://")
        try:
            importlib.import_module(_PACKAGES[scheme])
            # With a class of the package's own, `::` and other schemes mean nothing.
            system: Any = importlib.import_module("fsspec").get_filesystem_class(scheme)
        except ImportError as error:
            text = f"{scheme}:// needs the package {_PACKAGES[scheme]}, which is not installed here"
            raise JobError("input_unreadable", text) from error
        try:
            opened = system(**credential.option_values(), skip_instance_cache=True).open(path, "rb")
            with cast(BinaryIO, opened) as reader:
                copy.take(reader)
        except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
            text = f"{uri[:200]}: {type(error).__name__}"
            raise JobError("input_unreadable", text) from error
        except (JobError, Interrupted):
            raise
        except Exception as error:  # file systems raise whatever their clients do
            text = f"{uri[:200]}: {type(error).__name__}: {error}"[:500]
            status = getattr(getattr(error, "response", None), "status_code", 500)
            raise JobError("input_unreadable", text, retryable=_passing(status)) from error


def _passing(status: int) -> bool:
    """Whether another attempt may get another answer."""
    return status >= 500 or status in (408, 425, 429)


class _Copy:
    """Counts, digests and limits what is written."""

    def __init__(self, file: BinaryIO, settings: Settings, check: Callable[[], None]) -> None:
        self._file, self._check, self._digest = file, check, hashlib.sha256()
        self.limit, self._size = settings.max_file_bytes, 0
        self._seconds = settings.input_timeout.total_seconds()
        self._deadline = time.monotonic() + self._seconds

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def check(self) -> None:
        self._check()
        if time.monotonic() > self._deadline:
            text = f"fetching the input took longer than {self._seconds:g} s"
            raise JobError("input_unreadable", text, retryable=True)

    def write(self, part: bytes) -> None:
        self._size += len(part)
        if self._size > self.limit:
            raise self.too_large()
        self._digest.update(part)
        self._file.write(part)

    def take(self, reader: BinaryIO) -> None:
        while part := reader.read(CHUNK):
            self.check()
            self.write(part)

    def too_large(self) -> JobError:
        return JobError("too_large", f"The input has more than {self.limit} bytes.")


def _open_beneath(root: Path, relative: str) -> BinaryIO:
    """Open a file below a folder, following no symbolic link on the way."""
    *folders, name = relative.split("/")
    folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for part in folders:
            inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
            os.close(folder)
            folder = inner
        # Not blocking: a pipe in the place of a file must not hold the worker.
        number = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    finally:
        os.close(folder)
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise OSError("it is no regular file")
    return os.fdopen(number, "rb")
