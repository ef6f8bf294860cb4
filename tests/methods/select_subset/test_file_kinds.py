"""Rows and features in every form that people keep them in."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from methods.errors import JobError
from methods.local import LocalContext
from methods.select_subset.job import run
from methods.select_subset.result import Result
from methods.select_subset.spec import Spec

pyarrow = pytest.importorskip("pyarrow")
pytest.importorskip("pyarrow.csv")
torch = pytest.importorskip("torch")

ROWS: list[dict[str, Any]] = [
    {
        "id": f"r{n}",
        "messages": [
            {"role": "user", "content": f"What, then, is {n} + {n}?"},
            {"role": "assistant", "content": f'It is "{2 * n}",\nor {n} twice.'},
        ],
    }
    for n in range(30)
]
VALUES = np.arange(90, dtype=np.float64).reshape(30, 3) ** 1.5


def select(folder: Path, **spec: Any) -> Result:
    fields = {"budget": {"count": 5}, "method": "random", **spec}
    parsed = Spec.model_validate(fields)
    return run(parsed, LocalContext(folder / "job", parsed, inputs=folder))


def chosen(folder: Path, result: Result) -> bytes:
    return (folder / "job" / result.artifacts["rows"].id).read_bytes()


def lines() -> bytes:
    return "".join(json.dumps(row) + "\n" for row in ROWS).encode()


def table() -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, ["id", "messages"])
    writer.writeheader()
    writer.writerows({**row, "messages": json.dumps(row["messages"])} for row in ROWS)
    return text.getvalue().encode()


def zstandard(data: bytes) -> bytes:
    return bytes(pyarrow.Codec("zstd").compress(data, asbytes=True))


def arrow_stream() -> bytes:
    found = pyarrow.Table.from_pylist(ROWS)
    sink = io.BytesIO()
    with pyarrow.ipc.new_stream(sink, found.schema) as writer:
        writer.write_table(found, 7)
    return sink.getvalue()


def arrow_file() -> bytes:
    found = pyarrow.Table.from_pylist(ROWS)
    sink = io.BytesIO()
    with pyarrow.ipc.new_file(sink, found.schema) as writer:
        writer.write_table(found, 7)
    return sink.getvalue()


def read_lines(data: bytes) -> list[Any]:
    return [json.loads(line) for line in data.splitlines()]


def read_csv(data: bytes) -> list[Any]:
    found = csv.DictReader(io.StringIO(data.decode(), newline=""))
    return [{**row, "messages": json.loads(row["messages"])} for row in found]


def read_arrow(data: bytes) -> list[Any]:
    return list(pyarrow.ipc.open_file(io.BytesIO(data)).read_all().to_pylist())


@pytest.mark.parametrize(
    ("name", "data", "read"),
    [
        ("rows.jsonl.gz", gzip.compress(lines()), read_lines),
        ("rows.jsonl.bz2", bz2.compress(lines()), read_lines),
        ("rows.jsonl.xz", lzma.compress(lines()), read_lines),
        ("rows.jsonl.zst", zstandard(lines()), read_lines),
        ("rows.json.gz", gzip.compress(json.dumps(ROWS).encode()), json.loads),
        ("rows.csv", table(), read_csv),
        ("rows.tsv.gz", gzip.compress(table()), read_csv),
        ("rows.arrow", arrow_stream(), read_arrow),
        ("rows.feather", arrow_file(), read_arrow),
    ],
)
def test_rows_of_every_form(
    tmp_path: Path, name: str, data: bytes, read: Callable[[bytes], list[Any]]
) -> None:
    (tmp_path / name).write_bytes(data)
    result = select(tmp_path, dataset={"input": name})
    assert result.candidates == 30
    assert result.validation.bad_rows == 0
    assert read(chosen(tmp_path, result)) == [ROWS[row] for row in result.indices or []]


def numbers(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(arrays, buffer)
    return buffer.getvalue()


def tensor(**options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(torch.from_numpy(VALUES), buffer, **options)
    return buffer.getvalue()


def columns(**more: Any) -> Any:
    return pyarrow.table(
        {"id": [r["id"] for r in ROWS], **{f"t{n}": VALUES[:, n] for n in range(3)}}
    )


def of_table(kind: str) -> bytes:
    sink = io.BytesIO()
    if kind == "csv":
        pyarrow.csv.write_csv(columns(), sink)
    else:
        with pyarrow.ipc.new_stream(sink, columns().schema) as writer:
            writer.write_table(columns())
    return sink.getvalue()


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("t.pt", tensor()),
        ("old.pt", tensor(_use_new_zipfile_serialization=False)),
        ("named.pt", numbers(trajectory=torch.from_numpy(VALUES), epochs=torch.arange(3))),
        ("by_id.pt", numbers(**{f"r{n}": torch.from_numpy(VALUES[n]) for n in range(30)})),
        ("t.csv", of_table("csv")),
        ("t.arrow", of_table("arrow")),
        ("t.csv.gz", gzip.compress(of_table("csv"))),
    ],
)
def test_features_of_every_form(tmp_path: Path, name: str, data: bytes) -> None:
    np.save(tmp_path / "t.npy", VALUES)
    (tmp_path / name).write_bytes(data)
    dataset = {"rows": ROWS}
    found = []
    for file in ("t.npy", name):
        feature = {"kind": "trajectory", "input": file}
        result = select(tmp_path, dataset=dataset, features=feature, method="xmas")
        found.append(result.indices)
    assert found[0] == found[1]


class Trap:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> Any:
        return (Path.touch, (Path("trapped"),))


@pytest.mark.parametrize("new", [True, False])
def test_no_code_of_a_file_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, new: bool) -> None:
    monkeypatch.chdir(tmp_path)
    buffer = io.BytesIO()
    torch.save({"trajectory": Trap()}, buffer, _use_new_zipfile_serialization=new)
    (tmp_path / "t.pt").write_bytes(buffer.getvalue())
    with pytest.raises(JobError, match="more than tensors") as caught:
        select(tmp_path, features={"kind": "trajectory", "input": "t.pt"}, method="xmas")
    assert caught.value.code == "input_invalid"
    assert not (tmp_path / "trapped").exists()


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (gzip.compress(lines())[:-9], "gzip file is damaged"),
        (b"", "is empty"),
        (b"\0\1\2\3", "none of JSON lines"),
        (b"a,a\n1,2\n", "names a column twice"),
    ],
)
def test_files_that_cannot_be_read_say_why(tmp_path: Path, data: bytes, match: str) -> None:
    (tmp_path / "rows").write_bytes(data)
    with pytest.raises(JobError, match=match) as caught:
        select(tmp_path, dataset={"input": "rows"})
    assert caught.value.code == "input_invalid"


def test_a_row_of_a_table_with_other_cells_is_a_bad_row(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("id,prompt,completion\na,b,c\nd,e\nf,g,h\n")
    with pytest.raises(JobError, match="has 2 cells, the header has 3"):
        select(tmp_path, dataset={"input": "rows.csv"})
