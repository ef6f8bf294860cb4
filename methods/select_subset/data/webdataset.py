"""WebDataset: a tar whose neighbouring files of one name are a row."""

from __future__ import annotations

import json
import posixpath
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from methods.errors import JobError
from methods.select_subset.data.row_files import MAX_ROW_BYTES, Broken, Spans
from methods.typing import IntArray

_BLOCK = 512
_PICTURES = {"jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff"}


class WebDataset(Spans):
    """An uncompressed tar of samples.

    A row has the fields of its `json` file, the pictures under `images` (in the order of the
    files), a `txt` file under `txt`, and the name of its files under `__key__`, which is its `id`
    where the JSON has none. Chosen rows are copied byte by byte into a tar of their own.
    """

    media_type, suffix = "application/x-tar", "tar"

    def read(self) -> Iterator[Any]:
        with self._open() as reader:
            try:
                with tarfile.open(fileobj=reader, mode="r:") as archive:
                    yield from self._rows(archive)
            except tarfile.TarError as error:
                raise JobError(
                    "input_invalid",
                    f"The file is no uncompressed tar, or damaged after row {len(self._starts)}: "
                    f"{error}",
                ) from error

    def _rows(self, archive: tarfile.TarFile) -> Iterator[Any]:
        sample: dict[str, bytes | None] = {}
        key: str | None = None
        start = end = 0
        while (member := archive.next()) is not None:
            # The archive would keep every member.
            cast(Any, archive).members.clear()
            if not member.isreg():
                continue
            name, extension = split_name(member.name)
            if name != key:
                if key is not None:
                    yield self._row(key, sample, start, end)
                key, sample, start = name, {}, member.offset
            end = member.offset_data + -(-member.size // _BLOCK) * _BLOCK
            self._read = end
            fits = member.size <= MAX_ROW_BYTES
            found = archive.extractfile(member) if fits else None
            # Two files of one ending are both kept.
            ending = extension if extension not in sample else f"{len(sample)}.{extension}"
            sample[ending] = found.read() if found is not None else None
        if key is not None:
            yield self._row(key, sample, start, end)

    def _row(self, key: str, sample: dict[str, bytes | None], start: int, end: int) -> Any:
        self._starts.append(start)
        self._sizes.append(end - start)
        row: dict[str, Any] = {}
        images = []
        for extension, data in sample.items():
            if data is None:
                return Broken(f"has a file of more than {MAX_ROW_BYTES} bytes")
            kind = extension.rpartition(".")[2].lower()
            if kind in _PICTURES:
                images.append({"bytes": data, "path": f"{key}.{extension}"})
            elif kind == "json":
                try:
                    given = json.loads(data)
                except (ValueError, RecursionError) as error:
                    return Broken(f"has a json file that is no JSON: {error}")
                if not isinstance(given, dict):
                    return Broken("has a json file that is no object")
                row |= given
            elif kind == "txt":
                row["txt"] = data.decode(errors="replace")
        if images:
            # Paths in the JSON name the same pictures.
            row.pop("image", None)
            row["images"] = images
        row["__key__"] = key
        row.setdefault("id", key)
        return row

    def copy(self, rows: IntArray, target: Path) -> None:
        with target.open("wb") as writer:
            for piece in self._pieces(rows):
                writer.write(piece)
            writer.write(b"\0" * 2 * _BLOCK)


def split_name(path: str) -> tuple[str, str]:
    """The key of a file and its ending: `a/b.left.jpg` is `a/b` and `left.jpg`."""
    folder, name = posixpath.split(path)
    stem, _, extension = name.partition(".")
    return posixpath.join(folder, stem), extension
