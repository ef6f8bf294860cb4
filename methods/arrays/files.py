"""Rows of stored arrays, a bounded number at a time: npy, npz, safetensors and parquet.

Uploaded files carry no name that could be trusted, so the format is read from the first bytes.
Nothing here keeps more than one chunk, which is what makes the memory of a job independent of the
number of rows. Nothing is unpickled.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator
from typing import Any, BinaryIO, Protocol

import numpy as np
from numpy.typing import NDArray

from methods.arrays.headers import SafetensorsHeader, read_npy_header, widened
from methods.arrays.unpacking import DAMAGED, check_parquet, open_zip, size_of
from methods.errors import JobError

#: Column-major arrays cannot be read row by row, so they are held whole up to this many bytes.
MAX_COLUMN_MAJOR_BYTES = 2 << 30
#: Rows are read in a stream, so this is about time more than about memory.
MAX_UNPACKED_BYTES = 1 << 40
#: One row has to fit into memory many times over.
MAX_COLUMNS = 65536
MAX_ITEM_BYTES = 4096


class ArrayRows(Protocol):
    """One stored array of one or two dimensions, read from its first row to its last."""

    shape: tuple[int, ...]

    def read(self, rows: int) -> NDArray[Any]:
        """The next rows, fewer only at the end of the array."""


def open_array(stream: BinaryIO, array: str | None, label: str) -> ArrayRows:
    """Open one array of a file.

    Args:
        stream: the file, seekable, at its start.
        array: the member of an npz or safetensors file, or the column of a parquet file; None
            takes the only one (parquet: all numeric columns side by side).
        label: how error messages name the file.

    Raises:
        JobError: `input_invalid` when the file is none of the formats, lacks the array, or holds
            Python objects; `too_large` for column-major arrays past the limit.
    """
    magic = stream.read(8)
    stream.seek(0)
    try:
        if magic.startswith(b"\x93NUMPY"):
            if array is not None:
                raise _invalid(label, f"is an npy file and holds no array named {array!r}")
            return _open_npy(stream, label)
        if magic.startswith(b"PK\x03\x04"):
            return _open_npz(stream, array, label)
        if magic.startswith(b"PAR1"):
            return _open_parquet(stream, array, label)
        return _open_safetensors(stream, array, label)
    except DAMAGED as error:
        raise _invalid(label, f"is not readable: {_reason(error)}") from error


class _RawRows:
    """C-ordered rows that lie one after the other in a byte stream."""

    def __init__(
        self, stream: BinaryIO, shape: tuple[int, ...], dtype: np.dtype[Any], label: str
    ) -> None:
        self.shape = shape
        self._stream, self._dtype, self._label = stream, dtype, label
        self._width = math.prod(shape[1:])
        self._left = shape[0]

    def read(self, rows: int) -> NDArray[Any]:
        rows = min(rows, self._left)
        wanted = rows * self._width * self._dtype.itemsize
        parts: list[bytes] = []
        while wanted > 0:
            try:
                part = self._stream.read(wanted)
            except DAMAGED as error:
                raise _invalid(self._label, f"is damaged: {_reason(error)}") from error
            if not part:
                done = self.shape[0] - self._left
                raise _invalid(self._label, f"ends before the rows after row {done} are complete")
            parts.append(part)
            wanted -= len(part)
        self._left -= rows
        flat: NDArray[Any] = np.frombuffer(b"".join(parts), dtype=self._dtype)
        return flat.reshape((rows, *self.shape[1:]))


class _HeldRows:
    """Rows of an array that is in memory already."""

    def __init__(self, values: NDArray[Any]) -> None:
        self.shape = values.shape
        self._values, self._at = values, 0

    def read(self, rows: int) -> NDArray[Any]:
        start, self._at = self._at, min(self._at + rows, self.shape[0])
        return self._values[start : self._at]


class _Bfloat16Rows:
    """bfloat16 read as the upper half of float32; numpy has no such type."""

    def __init__(self, rows: _RawRows) -> None:
        self.shape = rows.shape
        self._rows = rows

    def read(self, rows: int) -> NDArray[Any]:
        return widened(self._rows.read(rows))


def _open_npy(stream: BinaryIO, label: str) -> ArrayRows:
    shape, column_major, dtype = read_npy_header(stream)
    if dtype.hasobject:
        raise _invalid(label, "holds Python objects, which are never read; save numbers instead")
    _check_shape(shape, dtype, label)
    if not column_major or len(shape) == 1:
        return _RawRows(stream, shape, dtype, label)
    if math.prod(shape) * dtype.itemsize > MAX_COLUMN_MAJOR_BYTES:
        raise JobError(
            "too_large", f"{label} is stored column by column; save np.ascontiguousarray(array)"
        )
    columns = _RawRows(stream, shape[::-1], dtype, label)
    return _HeldRows(columns.read(shape[1]).T)


def _open_npz(stream: BinaryIO, array: str | None, label: str) -> ArrayRows:
    archive = open_zip(stream, label, MAX_UNPACKED_BYTES)
    names = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
    name = _pick(names, array, label)
    return _open_npy(archive.open(f"{name}.npy"), f"{label}[{name}]")  # type: ignore[arg-type]


def _open_safetensors(stream: BinaryIO, array: str | None, label: str) -> ArrayRows:
    try:
        header = SafetensorsHeader(stream)
    except ValueError as error:
        raise _invalid(label, "is no npy, npz, safetensors or parquet file") from error
    try:
        tensor = header.tensor(_pick(header.names, array, label))
    except (TypeError, KeyError) as error:
        raise _invalid(label, "has a damaged safetensors header") from error
    _check_shape(tensor.shape, tensor.dtype, label)
    stream.seek(tensor.start)
    rows = _RawRows(stream, tensor.shape, tensor.dtype, label)
    return _Bfloat16Rows(rows) if tensor.bfloat16 else rows


class _ParquetRows:
    """A list column, one scalar column, or several scalar columns side by side."""

    def __init__(self, file: Any, columns: list[str], label: str) -> None:
        self._columns, self._label = columns, label
        self._batches: Iterator[Any] = file.iter_batches(batch_size=4096, columns=columns)
        first = next(self._batches, None)
        self._buffer = self._to_array(first) if first is not None else np.empty((0, 0))
        self.shape: tuple[int, ...] = (file.metadata.num_rows, *self._buffer.shape[1:])

    def read(self, rows: int) -> NDArray[Any]:
        parts = [self._buffer]
        have = len(self._buffer)
        while have < rows:
            try:
                batch = next(self._batches, None)
            except DAMAGED as error:
                raise _invalid(self._label, f"is damaged: {_reason(error)}") from error
            if batch is None:
                break
            parts.append(self._to_array(batch))
            have += len(parts[-1])
        joined = np.concatenate(parts) if len(parts) > 1 else parts[0]
        self._buffer = joined[rows:]
        return joined[:rows]

    def _to_array(self, batch: Any) -> NDArray[Any]:
        columns = [batch.column(index) for index in range(batch.num_columns)]
        if any(column.null_count for column in columns):
            raise _invalid(self._label, "has null values")
        if len(columns) > 1:
            return np.column_stack([column.to_numpy(zero_copy_only=False) for column in columns])
        if not hasattr(columns[0], "flatten") or "list" not in str(columns[0].type):
            return np.asarray(columns[0].to_numpy(zero_copy_only=False))
        flat = np.asarray(columns[0].flatten().to_numpy(zero_copy_only=False))
        lengths = {len(item) for item in columns[0]}
        if len(lengths) != 1:
            raise _invalid(self._label, "has lists of different lengths in one column")
        return flat.reshape(len(columns[0]), -1)


def _open_parquet(stream: BinaryIO, array: str | None, label: str) -> ArrayRows:
    try:
        # By name, because pyarrow is optional and untyped.
        parquet: Any = importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise JobError(
            "input_unreadable",
            f"{label} is a parquet file and pyarrow is not installed on this worker; "
            "upload npy, npz or safetensors",
        ) from error
    file = parquet.ParquetFile(stream)
    check_parquet(file, size_of(stream), label)
    schema = file.schema_arrow
    if array is None:
        numeric = [f.name for f in schema if str(f.type).startswith(("float", "double", "half"))]
        columns = numeric or [_pick(list(schema.names), None, label)]
    else:
        columns = [_pick(list(schema.names), array, label)]
    rows = _ParquetRows(file, columns, label)
    _check_shape(rows.shape, np.dtype(np.float64), label)
    return rows


def _pick(names: list[str], wanted: str | None, label: str) -> str:
    if wanted is None and len(names) == 1:
        return names[0]
    if wanted is not None and wanted in names:
        return wanted
    shown = ", ".join(names[:20]) + (", …" if len(names) > 20 else "")
    problem = "needs `array`, it holds" if wanted is None else f"holds no {wanted!r}, only"
    raise _invalid(label, f"{problem} {shown or 'nothing'}")


def _check_shape(shape: tuple[int, ...], dtype: np.dtype[Any], label: str) -> None:
    if len(shape) not in (1, 2) or 0 in shape:
        raise _invalid(label, f"has the shape {shape}; one or two non-empty dimensions are read")
    if len(shape) == 2 and dtype.kind not in "fiub":
        raise _invalid(label, f"holds values of type {dtype}, which are no numbers")
    if dtype.itemsize > MAX_ITEM_BYTES or math.prod(shape[1:]) > MAX_COLUMNS:
        raise JobError(
            "too_large",
            f"{label} has the shape {shape} of {dtype}; at most {MAX_COLUMNS} columns of "
            f"{MAX_ITEM_BYTES} bytes are read",
        )


def _reason(error: BaseException) -> str:
    return str(error) or type(error).__name__


def _invalid(label: str, problem: str) -> JobError:
    return JobError("input_invalid", f"{label} {problem}", details={"file": label})
