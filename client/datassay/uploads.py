"""A file on its way to the service, read as it is sent."""

from __future__ import annotations

import io
import mimetypes
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

#: Called with the bytes sent so far and all bytes, None where the source cannot tell.
UploadProgress = Callable[[int, int | None], None]

# What data sets come in and the mimetypes tables of most systems lack.
_MEDIA_TYPES = {
    ".jsonl": "application/x-ndjson",
    ".ndjson": "application/x-ndjson",
    ".parquet": "application/vnd.apache.parquet",
    ".npz": "application/x-npz",
    ".safetensors": "application/x-safetensors",
}


class Upload(io.BufferedIOBase):
    """Reads a source from its start and reports how far it got.

    Args:
        source: A binary file object; a seekable one is rewound before each try.
        name: The name that the service shall keep.
        media_type: By the name's ending when None.
        on_progress: Called after each block.
    """

    def __init__(
        self,
        source: IO[bytes],
        name: str,
        media_type: str | None = None,
        on_progress: UploadProgress | None = None,
    ) -> None:
        self.file_name = name
        self.media_type = media_type or guess_media_type(name)
        self._source = source
        self._on_progress = on_progress
        self._sent = 0
        self._total = self._measure()

    def readable(self) -> bool:
        """Always; it is all that an upload is for."""
        return True

    def seekable(self) -> bool:
        """Whether the source can be read again, so that the upload can be repeated."""
        return self._source.seekable()

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move in the source; a rewind starts the count of sent bytes anew."""
        if not self.seekable():
            raise io.UnsupportedOperation("the source of this upload cannot be rewound")
        self._sent = self._source.seek(offset, whence)
        return self._sent

    def tell(self) -> int:
        """Position in the source."""
        return self._source.tell()

    def read(self, size: int | None = -1, /) -> bytes:
        """The next block, counted as sent."""
        block = self._source.read(-1 if size is None else size)
        self._sent += len(block)
        ended = size != 0 and not block
        # The length was announced; a body of another one is none.
        if self._total is not None and (
            self._sent > self._total or (ended and self._sent < self._total)
        ):
            raise OSError(f"{self.file_name} changed while it was sent")
        if self._on_progress is not None and block:
            self._on_progress(self._sent, self._total)
        return block

    def _measure(self) -> int | None:
        if not self.seekable():
            return None
        position = self._source.tell()
        end = self._source.seek(0, os.SEEK_END)
        self._source.seek(position)
        return end


@contextmanager
def open_upload(
    source: str | os.PathLike[str] | IO[bytes],
    name: str | None,
    media_type: str | None,
    on_progress: UploadProgress | None,
) -> Iterator[Upload]:
    """An upload of a path, closed at the end, or of a file object, left open.

    Raises:
        OSError: The path cannot be opened.
        TypeError: The file object is in text mode.
    """
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        with path.open("rb") as file:
            yield Upload(file, name or path.name, media_type, on_progress)
        return
    if isinstance(source, io.TextIOBase):
        raise TypeError("open the file in binary mode ('rb') to upload it")
    known = getattr(source, "name", None)
    default = Path(known).name if isinstance(known, str) else "upload"
    yield Upload(source, name or default, media_type, on_progress)


def is_uri(source: str) -> bool:
    """Whether an input is named by URI (`https://`, `s3://`, ...): the service fetches it."""
    return "://" in source


def guess_media_type(name: str) -> str:
    """The media type by the ending of a file's name."""
    ending = Path(name).suffix.lower()
    guess = _MEDIA_TYPES.get(ending) or mimetypes.guess_type(name)[0]
    return guess or "application/octet-stream"
