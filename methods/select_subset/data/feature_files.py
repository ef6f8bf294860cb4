"""Files of numbers: npy, npz, safetensors, .pt, tables, and JSON by id; no code of theirs runs."""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

from methods.arrays.named import npz, open_arrays, read_npy, safetensors
from methods.arrays.unpacking import DAMAGED, check_parquet, open_zip, size_of
from methods.errors import JobError
from methods.row_files import separator_of
from methods.select_subset.data.row_files import clean
from methods.select_subset.data.table_files import ArrowTable, arrow
from methods.select_subset.schema.inputs import Feature
from methods.typing import AnyArray

#: An archive that unpacks to more is refused before anything is unpacked.
MAX_UNPACKED_BYTES = 64 * 1024**3
#: JSON takes many times its size in memory; larger features come as npz, safetensors or parquet.
MAX_JSON_BYTES = 256 << 20
#: Columns in which pandas and Excel keep row numbers.
_INDEX = re.compile(r"__index_level_\d+__|index|level_\d+|Unnamed: ?\d+", re.IGNORECASE)


_BATCH, _LINE = 1 << 20, 1 << 20
_MAGIC = {
    b"\x93NUMPY": "npy",
    b"PAR1": "parquet",
    b"ARROW1": "arrow",
    b"\xff\xff\xff\xff": "arrow",
    b"\x80": "pt",
}


@dataclass
class Table:
    """An array with its ids.

    Attributes:
        values: (N, ...), numbers.
        ids: N ids, or None where the file has none.
        tasks: N task names, or None.
    """

    values: AnyArray
    ids: list[str] | None = None
    tasks: list[str] | None = None


def read_table(reader: BinaryIO, feature: Feature, what: str) -> Table:
    """Read one file of a feature.

    Args:
        reader: seekable.
        feature: says which arrays or columns.
        what: names the feature in messages.

    Raises:
        JobError: `input_invalid` for a damaged file, pickled objects or unknown arrays;
            `too_large`; `input_unreadable` where a format needs a package that is missing.
    """
    form: str = feature.format
    try:
        if form == "auto":
            form = _format(reader, what)
        if form == "npy":
            return Table(read_npy(reader, what, MAX_UNPACKED_BYTES))
        return _READERS[form](reader, feature, what)
    except DAMAGED as error:
        reason = str(error) or type(error).__name__
        raise JobError("input_invalid", f"{what} is not a valid {form} file: {reason}") from error


def _format(reader: BinaryIO, what: str) -> str:
    start = reader.read(9)
    reader.seek(0)
    if start.startswith(b"PK"):
        try:
            archive = open_zip(reader, what, MAX_UNPACKED_BYTES)
        except DAMAGED as error:
            raise ValueError(f"it is not a valid npz file: {error}") from error
        reader.seek(0)
        tensors = any(name.endswith("data.pkl") for name in archive.namelist())
        return "pt" if tensors else "npz"
    for magic, name in _MAGIC.items():
        if start.startswith(magic):
            return name
    if start[8:9] == b"{":
        return "safetensors"
    if start.lstrip()[:1] == b"{":
        return "json"
    if start and b"\0" not in start:
        return "csv"
    raise JobError(
        "input_invalid",
        f"{what} is in none of the known formats: npy, npz, safetensors, .pt, parquet, Arrow, CSV, "
        "JSON.",
    )


def _npz(reader: BinaryIO, feature: Feature, what: str) -> Table:
    with open_zip(reader, what, MAX_UNPACKED_BYTES) as archive:
        arrays = npz(archive, what, MAX_UNPACKED_BYTES, texts=True)
        return _from_names(arrays.names, arrays.read, feature, what)


def _safetensors(reader: BinaryIO, feature: Feature, what: str) -> Table:
    arrays = safetensors(reader, what, MAX_UNPACKED_BYTES)
    return _from_names(arrays.names, arrays.read, feature, what)


def _from_names(names: list[str], load: Any, feature: Feature, what: str) -> Table:
    ids = feature.id_field or next((n for n in ("id", "ids") if n in names), None)
    tasks = next((n for n in ("task", "tasks") if n in names), None)
    chosen = feature.array
    if chosen is None:
        others = [n for n in names if n not in {ids, tasks}]
        chosen = feature.kind if feature.kind in others else others[0] if len(others) == 1 else None
    for name in (chosen, ids):
        if name is not None and name not in names:
            raise JobError("input_invalid", f"{what} has no array {name}, only {', '.join(names)}.")
    if chosen is None:
        raise JobError("input_invalid", f"{what} has several arrays; name one: {', '.join(names)}.")
    return Table(
        load(chosen),
        None if ids is None else [clean(str(i)) for i in load(ids).tolist()],
        None if tasks is None else [str(i) for i in load(tasks).tolist()],
    )


def _pt(reader: BinaryIO, feature: Feature, what: str) -> Table:
    """Tensors by name; where none is named and all have one shape, the names are the ids."""
    arrays = open_arrays(reader, what)
    usual = {feature.array, feature.kind, feature.id_field, "id", "ids", "task", "tasks"}
    if len(arrays.names) > 1 and not usual & set(arrays.names):
        values = [arrays.read(name) for name in arrays.names]
        if len({value.shape for value in values}) == 1:
            return Table(np.stack(values), [clean(name) for name in arrays.names])
    return _from_names(arrays.names, arrays.read, feature, what)


def _parquet(reader: BinaryIO, feature: Feature, what: str) -> Table:
    pyarrow, parquet = arrow()
    try:
        file = parquet.ParquetFile(reader)
        check_parquet(file, size_of(reader), what)
        return _of_columns(file.schema_arrow, lambda n: file.read([n]).column(0), feature, what)
    except pyarrow.ArrowException as error:
        raise ValueError(str(error)) from error


def _arrow(reader: BinaryIO, feature: Feature, what: str) -> Table:
    pyarrow, _ = arrow()
    try:
        file = ArrowTable(reader)
        batches = list(file.iter_batches(_BATCH))
        table = pyarrow.Table.from_batches(batches, schema=file.schema_arrow)
        return _of_columns(table.schema, table.column, feature, what)
    except pyarrow.ArrowException as error:
        raise ValueError(str(error)) from error


def _csv(reader: BinaryIO, feature: Feature, what: str) -> Table:
    pyarrow, _ = arrow()
    importlib.import_module("pyarrow.csv")
    header = reader.readline(_LINE).decode("utf-8-sig", errors="replace")
    reader.seek(0)
    parsing = pyarrow.csv.ParseOptions(delimiter=separator_of(header))
    try:
        table = pyarrow.csv.read_csv(reader, parse_options=parsing)
        return _of_columns(table.schema, table.column, feature, what)
    except pyarrow.ArrowException as error:
        raise ValueError(str(error)) from error


def _of_columns(schema: Any, column: Callable[[str], Any], feature: Feature, what: str) -> Table:
    wanted, ids, tasks = parquet_columns(schema, feature, what)
    columns = [_column(column(name), name, what) for name in wanted]
    texts = {n: column(n).to_pylist() for n in (ids, tasks) if n is not None}
    return Table(
        columns[0] if len(columns) == 1 else np.stack(columns, axis=1),
        None if ids is None else [clean(str(i)) for i in texts[ids]],
        None if tasks is None else [str(i) for i in texts[tasks]],
    )


def parquet_columns(
    schema: Any, feature: Feature, what: str
) -> tuple[list[str], str | None, str | None]:
    """Which columns hold the values, the ids and the tasks of a feature.

    Raises:
        JobError: `input_invalid` when one is missing.
    """
    names = schema.names
    ids = feature.id_field or next((n for n in ("id", "ids") if n in names), None)
    tasks = next((n for n in ("task", "tasks") if n in names), None)
    wanted = feature.columns or ([feature.array] if feature.array else None)
    if wanted is None:
        wanted = [
            n
            for n in names
            if n not in {ids, tasks} and not _INDEX.fullmatch(n) and _numeric(schema.field(n).type)
        ]
    absent = [n for n in [*wanted, *([ids] if ids else [])] if n not in names]
    if absent or not wanted:
        raise JobError(
            "input_invalid",
            f"{what} has no column {', '.join(absent) or 'of numbers'}, only {names}.",
        )
    return wanted, ids, tasks


def _numeric(kind: Any) -> bool:
    text = str(kind)
    return any(part in text for part in ("float", "double", "int", "bool"))


def _column(chunks: Any, name: str, what: str) -> AnyArray:
    column = chunks.combine_chunks()
    shape = [len(column)]
    while hasattr(column.type, "value_type"):
        if column.null_count:
            raise JobError("input_invalid", f"{what}, column {name}: some lists are missing.")
        lengths = np.unique([len(part) for part in column]) if len(column) else np.array([0])
        if len(lengths) > 1:
            raise JobError(
                "input_invalid",
                f"{what}, column {name}: lists have from {lengths[0]} to {lengths[-1]} values.",
            )
        shape.append(int(lengths[0]))
        column = column.flatten()
    return np.asarray(column.to_numpy(zero_copy_only=False)).reshape(shape)


def _json(reader: BinaryIO, feature: Feature, what: str) -> Table:
    text = reader.read(MAX_JSON_BYTES + 1)
    if len(text) > MAX_JSON_BYTES:
        raise JobError("too_large", f"{what} has more than {MAX_JSON_BYTES} bytes of JSON.")
    found = json.loads(text)
    if not isinstance(found, dict) or not found:
        raise ValueError("it is not an object of id: value")
    return Table(
        np.array(list(found.values()), dtype=np.float64), [clean(identity) for identity in found]
    )


_READERS: dict[str, Callable[[BinaryIO, Feature, str], Table]] = {
    "npz": _npz,
    "safetensors": _safetensors,
    "pt": _pt,
    "parquet": _parquet,
    "arrow": _arrow,
    "csv": _csv,
    "json": _json,
}
