"""No file takes memory that its sender has not paid for in bytes, and none crashes a reader.

Each case is read under a limit of the memory that Python may allocate meanwhile.
"""

from __future__ import annotations

import io
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from methods.arrays import named
from methods.arrays.files import open_array
from methods.errors import JobError
from methods.local import LocalContext
from methods.rank_distilled_dataset.data import dataset_formats
from methods.rank_distilled_dataset.data.images import read_picture
from methods.select_subset.data import images
from methods.select_subset.data.feature_files import read_table
from methods.select_subset.data.row_files import JsonArray, JsonLines
from methods.select_subset.data.table_files import Parquet
from methods.select_subset.data.webdataset import WebDataset
from methods.select_subset.schema.inputs import Feature
from tests.methods.bombs import (
    MIB,
    corrupted,
    crowded_zip,
    gzipped,
    jpeg,
    npy_header,
    png,
    repeated_parquet,
    safetensors,
    tarred,
    zipped,
)

ALLOWED = 150 * MIB
CODES = {"input_invalid", "too_large"}


@contextmanager
def bounded() -> Iterator[None]:
    """Fails when more than `ALLOWED` bytes are allocated at once (numpy's and Python's)."""
    tracemalloc.start()
    try:
        yield
        _, peak = tracemalloc.get_traced_memory()
        assert peak < ALLOWED, f"{peak / MIB:.0f} MiB"
    finally:
        tracemalloc.stop()


def refused(read: Callable[[], Any]) -> JobError:
    with bounded(), pytest.raises(JobError) as caught:
        read()
    assert caught.value.code in CODES
    assert caught.value.message
    return caught.value


def refusal_of(read: Callable[[], Any]) -> JobError | None:
    try:
        read()
    except JobError as error:
        return error
    return None


def read_rows(stream: io.BytesIO) -> None:
    """As jobs over rows do: chunk by chunk."""
    rows = open_array(stream, None, "file")
    while len(rows.read(4096)):
        pass


def read_feature(stream: io.BytesIO) -> None:
    read_table(stream, Feature(kind="score", input="x"), "Feature score")


def read_images(stream: io.BytesIO) -> None:
    found = named.open_arrays(stream, "file")
    for name in found.names:
        found.read(name)


READERS = [read_rows, read_feature, read_images]

ARRAYS: dict[str, Callable[[], io.BytesIO]] = {
    "npy that says a terabyte": lambda: io.BytesIO(npy_header((1 << 34, 8)) + bytes(64)),
    "npy that says 40 GB": lambda: io.BytesIO(npy_header((5_000_000_000,)) + bytes(64)),
    "npy with too many columns": lambda: io.BytesIO(npy_header((2, 1 << 40)) + bytes(64)),
    "npy with a negative shape": lambda: io.BytesIO(npy_header((-1, 4)) + bytes(64)),
    "npy with two negative lengths": lambda: io.BytesIO(npy_header((-2, -4)) + bytes(64)),
    "npy whose shape overflows": lambda: io.BytesIO(npy_header((1 << 62, 1 << 62)) + bytes(64)),
    "npy with a deep header": lambda: io.BytesIO(npy_header((), text="(" * 9000 + ")" * 9000)),
    "npy with objects": lambda: io.BytesIO(npy_header((1,), "|O") + b"cos\nsystem\n."),
    "npy whose header is 3 GiB": lambda: io.BytesIO(
        b"\x93NUMPY\x02\x00\x00\x00\x00\xc0" + bytes(64)
    ),
    "npz whose header unpacks to 160 MiB": lambda: zipped(
        "x.npy", b"\x93NUMPY\x02\x00\x00\x00\x00\x0a", 160 * MIB
    ),
    "npz that is 160 MiB of zeros": lambda: zipped("x.npy", npy_header((20_971_520,)), 160 * MIB),
    "npz that is spoiled": lambda: corrupted(zipped("x.npy", npy_header((524_288,)), 4 * MIB)),
    "npz packed by LZMA": lambda: zipped("x.npy", npy_header((131_072,)), MIB, zipfile.ZIP_LZMA),
    "npz with 2,000,000 members": lambda: crowded_zip(2_000_000),
    "npz that is cut off": lambda: io.BytesIO(
        zipped("x.npy", npy_header((131_072,)), MIB).getvalue()[:-40]
    ),
    "safetensors with a deep header": lambda: safetensors(
        b'{"x": ' + b"[" * 50_000 + b"]" * 50_000 + b"}"
    ),
    "safetensors with a header of 8 EB": lambda: io.BytesIO(b"\xff" * 7 + b"\x7f{" + bytes(64)),
    "safetensors that says 1 TB": lambda: safetensors(
        {"x": {"dtype": "F32", "shape": [1 << 38], "data_offsets": [0, 1 << 40]}}, bytes(64)
    ),
    "safetensors with negative lengths": lambda: safetensors(
        {"x": {"dtype": "F32", "shape": [-2, -2], "data_offsets": [0, 16]}}, bytes(16)
    ),
    "safetensors with a negative place": lambda: safetensors(
        {"x": {"dtype": "F32", "shape": [4], "data_offsets": [-8, 8]}}, bytes(16)
    ),
    "safetensors that is a list": lambda: safetensors([1, 2], bytes(16)),
    "a pickle": lambda: io.BytesIO(b"\x80\x04\x95\x10\x00\x00\x00cos\nsystem\n."),
    "nothing": lambda: io.BytesIO(b""),
}


@pytest.mark.parametrize("read", READERS, ids=lambda read: read.__name__)
@pytest.mark.parametrize("bomb", ARRAYS, ids=str)
def test_arrays(read: Callable[[io.BytesIO], None], bomb: str) -> None:
    stream = ARRAYS[bomb]()
    refused(lambda: read(stream))


@pytest.mark.parametrize("read", [read_rows, read_feature], ids=lambda read: read.__name__)
@pytest.mark.parametrize("value", [1.5, [1.0] * 1000], ids=["numbers", "lists"])
def test_a_parquet_file_of_few_bytes_and_many_values(
    read: Callable[[io.BytesIO], None], value: object
) -> None:
    stream = (
        repeated_parquet(20_000_000, value)
        if value == 1.5
        else repeated_parquet(20_000, value, 1000)
    )
    assert len(stream.getvalue()) < 2 * MIB
    assert refused(lambda: read(stream)).code == "too_large"


def test_what_compresses_well_for_good_reason_is_read() -> None:
    """A few MiB of zeros are no bomb."""
    stream = io.BytesIO()
    np.savez_compressed(stream, x=np.zeros((100_000, 4)))
    stream.seek(0)
    assert open_array(stream, None, "f").read(100_000).shape == (100_000, 4)
    stream.seek(0)
    read_feature(stream)
    assert len(repeated_parquet(1_000, 1.5).getvalue()) > 0
    read_rows(repeated_parquet(100_000, 1.5))


@pytest.fixture
def context(tmp_path: Path) -> Callable[[io.BytesIO], LocalContext]:
    def make(stream: io.BytesIO) -> LocalContext:
        (tmp_path / "input").write_bytes(stream.getvalue())
        return LocalContext(tmp_path)

    return make


Make = Callable[[io.BytesIO], LocalContext]


def every_row(kind: Any, ctx: LocalContext) -> list[Any]:
    return list(kind(lambda: ctx.open_input("input"), ctx).read())  # type: ignore[arg-type]


def test_rows_of_a_parquet_bomb(context: Make) -> None:
    ctx = context(repeated_parquet(20_000_000, 1.5))
    assert refused(lambda: every_row(Parquet, ctx)).code == "too_large"


def test_long_values_of_a_dictionary_are_not_unpacked_together(context: Make) -> None:
    """1,000 rows that share one value of 1 MiB: 4 GiB as rows, 1 MiB in the file."""
    ctx = context(repeated_parquet(1_000, "x" * MIB, 100))
    with bounded():
        count = sum(1 for _ in Parquet(lambda: ctx.open_input("input"), ctx).read())  # type: ignore[arg-type]
    assert count == 1_000


def test_deep_rows_are_bad_rows_and_no_crash(context: Make) -> None:
    deep = b"[" * 200_000 + b"]" * 200_000
    (row,) = every_row(JsonLines, context(io.BytesIO(b'{"id": ' + deep + b"}\n")))
    assert "not JSON" in row.problem
    refused(lambda: every_row(JsonArray, context(io.BytesIO(b'[{"id": ' + deep + b"}]"))))
    sample = tarred([("a.json", 0, b'{"id": ' + deep + b"}")], "w")
    (row,) = every_row(WebDataset, context(sample))
    assert "no JSON" in row.problem


def test_a_webdataset_whose_header_says_more_than_it_has(context: Make) -> None:
    for size in (
        b"77777777777\x00",
        b"\x80" + bytes(6) + b"\x7f\xff\xff\xff\xff",
        b"\xff" + b"\xff" * 11,
    ):
        data = bytearray(tarred([("a.json", 0, b"{}")], "w").getvalue())
        data[124:136] = size
        total = sum(data[:148]) + sum(data[156:512]) + 8 * 32
        data[148:156] = f"{total:06o}\x00 ".encode()
        ctx = context(io.BytesIO(bytes(data)))
        with bounded():
            found = refusal_of(lambda: every_row(WebDataset, ctx))  # noqa: B023
        assert found is None or found.code in CODES


def cifar(stream: io.BytesIO) -> None:
    dataset_formats.read_cifar_archive(stream, 10, "file")


GZIPS: dict[str, tuple[Callable[[io.BytesIO], Any], Callable[[], io.BytesIO]]] = {
    "idx that unpacks to 160 MiB": (
        lambda s: dataset_formats.plain(s, "file"),
        lambda: gzipped(b"\0\0\x08\x01", 160 * MIB),
    ),
    "idx that is spoiled": (
        lambda s: dataset_formats.plain(s, "file"),
        lambda: io.BytesIO(gzipped(b"\0\0", 4 * MIB).getvalue()[:200] + b"\xa5" * 500),
    ),
    "cifar of 160 MiB": (cifar, lambda: gzipped(b"", 160 * MIB)),
    "cifar with 30,000 members": (
        cifar,
        lambda: tarred([(f"{n}.bin", 0, b"") for n in range(30_000)]),
    ),
    "cifar whose member says 8 GiB": (cifar, lambda: gzipped(_lying_tar(), 0)),
    "cifar packed by xz": (cifar, lambda: tarred([("a.bin", 3073, bytes(3073))], "w:xz")),
}


def _lying_tar() -> bytes:
    data = bytearray(tarred([("data_batch_1.bin", 0, b"")], "w").getvalue())
    data[124:136] = b"77777777777\x00"
    total = sum(data[:148]) + sum(data[156:512]) + 8 * 32
    data[148:156] = f"{total:06o}\x00 ".encode()
    return bytes(data)


@pytest.mark.parametrize("bomb", GZIPS, ids=str)
def test_gzip(bomb: str) -> None:
    read, make = GZIPS[bomb]
    stream = make()
    refused(lambda: read(stream))


PICTURES: dict[str, bytes] = {
    "png of 10^10 pixels": png(100_000, 100_000),
    "png of 4 x 10^18 pixels": png(2**31 - 1, 2**31 - 1),
    "png without a picture": png(0, 0),
    "png of parts without end": b"\x89PNG\r\n\x1a\n" + b"\xff\xff\xff\xffIDAT" * 3,
    "jpeg of 4 x 10^9 pixels": jpeg(65_535, 65_535),
    "jpeg that ends": jpeg(10, 10),
}


@pytest.mark.parametrize("name", PICTURES, ids=str)
def test_pictures(name: str) -> None:
    data = PICTURES[name]
    with bounded(), pytest.raises(images.BadImageError):
        images.decode(data)
    refused(lambda: read_picture(data, "file"))


def test_a_png_that_unpacks_to_more_than_it_says_is_read_as_far_as_it_says() -> None:
    data = png(10, 10, bytes(64 * MIB))
    with bounded():
        assert images.decode(data).size == (10, 10)
        assert read_picture(data, "file").shape == (10, 10, 1)


def test_archives_of_pictures(tmp_path: Path) -> None:
    bombs = {
        "large": zipped("a.png", b"\x89PNG", 160 * MIB),
        "spoiled": corrupted(zipped("a.png", b"\x89PNG", 4 * MIB)),
        "lzma": zipped("a.png", b"\x89PNG", MIB, zipfile.ZIP_LZMA),
    }

    def look(name: str) -> None:
        archive = images.Archive(name, LocalContext(tmp_path))  # type: ignore[arg-type]
        try:
            archive.read("a.png")
        except images.BadImageError as error:
            raise JobError("input_invalid", str(error)) from error

    for name, stream in bombs.items():
        (tmp_path / name).write_bytes(stream.getvalue())
        with bounded():
            found = refusal_of(lambda: look(name))  # noqa: B023
        assert found is not None
        assert found.code in CODES
        refused(lambda: dataset_formats.read_folders(stream, "file", lambda: None, []))  # noqa: B023


def test_folders_with_a_large_list_of_classes() -> None:
    stream = zipped("val/val_annotations.txt", b"", 160 * MIB)
    refused(lambda: dataset_formats.read_folders(stream, "file", lambda: None, []))
