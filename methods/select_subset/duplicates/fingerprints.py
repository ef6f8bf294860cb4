"""What is remembered of each row while it is read, to find those that repeat it."""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from hashlib import blake2b
from typing import Any

import numpy as np

from methods.errors import JobError
from methods.select_subset.data.copies import Copies
from methods.select_subset.data.images import BadImageError, decode, embedded
from methods.select_subset.duplicates.images import perceptual_hash
from methods.select_subset.duplicates.pairs import near_rows
from methods.select_subset.duplicates.text_sketches import PERMUTATIONS, Sketches, plain, sketches
from methods.select_subset.schema.duplicates import Duplicates

#: Texts that are sketched at a time.
_TEXTS = 2048
#: Characters of a text that its sketch is made of.
_LONGEST = 1 << 18
#: Pictures that wait to be hashed.
_WAITING = 64
#: Fields that are text to learn from; of rows with none of them all text counts.
_FIELDS = (
    *("conversations", "messages", "instruction", "input", "output", "prompt", "completion"),
    *("question", "answer", "response", "text"),
)
_MARK = "<image>"


class Fingerprints:
    """Collects rows one by one.

    Args:
        wanted: what to look for.
        opened: the bytes of an image that a row names by its path; None: the path stands for it.
    """

    def __init__(
        self, wanted: Duplicates, opened: Callable[[str], bytes] | None, id_field: str | None
    ) -> None:
        self._wanted, self._opened, self._id = wanted, opened, id_field or "id"
        self._first: dict[bytes, int] = {}
        self._of: list[int] = []
        self._rows: list[int] = []
        self._texts: list[str] = []
        self._sketches: list[Sketches] = []
        self._images: list[int] = []
        self._waiting: deque[tuple[int, Future[int]]] = deque()
        self._pool: ThreadPoolExecutor | None = None
        self._hashed = self._pictured = False

    def add(self, row: Any, images: list[Any], field: str) -> None:
        """The next row with its images; one that is no object repeats nothing."""
        number = len(self._of)
        self._of.append(number)
        if not isinstance(row, dict):
            return
        text = "\n".join(texts_of(row, {self._id, field}))
        found = [self._content(image) for image in images]
        digest = blake2b(text.encode(errors="replace"), digest_size=16)
        for content in found:
            digest.update(b"\0" + blake2b(content or b"", digest_size=16).digest())
        first = self._first.setdefault(digest.digest(), number)
        if first != number:
            self._of[number] = first
            return
        if self._wanted.near_text is None:
            return
        self._rows.append(number)
        self._texts.append(plain(text[:_LONGEST]))
        self._images.append(_mixed(found))
        self._pictured |= bool(images)
        if len(found) == 1 and self._wanted.near_images is not None and found[0] is not None:
            self._hash(found[0])
        if len(self._texts) == _TEXTS:
            self._sketch()

    def _content(self, image: Any) -> bytes | None:
        """The bytes of an image, or its path; None where it has neither."""
        try:
            found = embedded(image)
            if isinstance(found, str) and self._opened is not None:
                found = self._opened(found)
        except BadImageError:
            return None
        return found if isinstance(found, bytes) else found.encode(errors="replace")

    def _hash(self, content: bytes) -> None:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(max(1, min(8, os.cpu_count() or 1)))
        if len(self._waiting) >= _WAITING:
            self._take()
        self._waiting.append((len(self._images) - 1, self._pool.submit(_looked_at, content)))

    def _take(self) -> None:
        place, found = self._waiting.popleft()
        value = found.result()
        if value:
            self._images[place], self._hashed = value, True

    def _sketch(self) -> None:
        self._sketches.append(sketches(self._texts))
        self._texts = []

    def copies(self) -> Copies:
        """What was found in all rows."""
        try:
            while self._waiting:
                self._take()
        finally:
            if self._pool is not None:
                self._pool.shutdown(cancel_futures=True)
        found = Copies.none(len(self._of), self._words())
        found.add_exact(np.array(self._of, dtype=np.int64))
        if self._wanted.near_text is not None and self._rows:
            self._sketch()
            sketched = np.concatenate(self._sketches)
            assert sketched.shape == (len(self._rows), PERMUTATIONS), "one a row"
            images = np.array(self._images, dtype=np.uint64)
            bits = self._wanted.near_images or 0
            a, b, value = near_rows(sketched, images, self._wanted.near_text, bits)
            rows = np.array(self._rows, dtype=np.int64)
            found.add_near((rows[a], rows[b], value), "text")
        return found

    def _words(self) -> list[str]:
        words = ["the same text" + (" and images" if self._pictured else "")]
        if self._wanted.near_text is not None:
            near = f"texts that are alike in {self._wanted.near_text:.0%} of their shingles"
            if self._hashed:
                near += f", images whose hashes differ in up to {self._wanted.near_images} bits"
            elif self._pictured:
                near += " beside the same images"
            words.append(near)
        return words


def _looked_at(content: bytes) -> int:
    """The perceptual hash of a picture, 0 where it cannot be decoded."""
    try:
        return perceptual_hash(decode(content))
    except (BadImageError, JobError):
        return 0


def _mixed(images: list[bytes | None]) -> int:
    """One number for all images of a row, 0 for none."""
    if not images:
        return 0
    digest = blake2b(digest_size=8)
    for content in images:
        digest.update(blake2b(content or b"", digest_size=16).digest())
    return int.from_bytes(digest.digest(), "big") or 1


def texts_of(row: dict[str, Any], left_out: set[str]) -> Iterator[str]:
    """The texts of a row in order: of its turns and fields to learn from, or of all its fields."""
    fields = [name for name in _FIELDS if row.get(name)]
    for name in fields or [name for name in row if name not in left_out]:
        yield from _strings(row[name])


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        text = value.replace(_MARK, "").strip()
        if text:
            yield text
    elif isinstance(value, dict):
        kind = value.get("type")
        if kind in ("image", "image_url"):
            return
        for key, one in value.items():
            if key not in ("id", "type"):
                yield from _strings(one)
    elif isinstance(value, list):
        for one in value:
            yield from _strings(one)
    elif value is not None and not isinstance(value, bytes):
        yield json.dumps(value, default=str)
