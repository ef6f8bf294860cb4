"""Files of rows and of numbers: every format, and what is wrong with damaged ones."""

import io
import json
import struct
import sys

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from methods.errors import JobError
from methods.local import LocalContext
from methods.select_subset.data import row_files
from methods.select_subset.data.dataset import count_repeats, read_rows, source_of
from methods.select_subset.data.features import load_feature
from methods.select_subset.schema.inputs import Feature, TrainingRows
from tests.methods.select_subset.selecting import conversation, select, text

ROWS = [conversation(i, image=i % 3 > 0, note="ünï ✓" * (i % 4)) for i in range(40)]


def context(folder):
    return LocalContext(folder)


def read(folder, group=None, needed=False, **dataset):
    return read_rows(TrainingRows(**dataset), group, needed, context(folder))


@pytest.mark.parametrize("form", ["jsonl", "llava_json", "parquet"])
@pytest.mark.parametrize("chunk", [7, 1 << 20])
def test_rows_come_back_as_they_were_in_output_order(tmp_path, monkeypatch, form, chunk):
    monkeypatch.setattr(row_files, "_CHUNK", chunk)
    file = tmp_path / "data"
    if form == "jsonl":
        lines = [json.dumps(row, ensure_ascii=False) for row in ROWS]
        file.write_text("\n\n".join(lines), encoding="utf-8-sig")
    elif form == "llava_json":
        file.write_text(json.dumps(ROWS, ensure_ascii=False, indent=1), encoding="utf-8-sig")
    else:
        pyarrow.parquet.write_table(
            pyarrow.Table.from_pylist([{"image": None, **row} for row in ROWS]),
            file,
            row_group_size=7,
        )
    result = select(
        tmp_path,
        dataset={"input": "data", "format": form},
        method="random",
        budget={"count": 9},
    )
    assert result.validation.rows == 40
    assert result.validation.text_only_rows == 14
    path = tmp_path / result.artifacts["rows"].id
    if form == "jsonl":
        back = [json.loads(line) for line in path.read_text().splitlines()]
    elif form == "llava_json":
        back = json.loads(path.read_text())
    else:
        back = pyarrow.parquet.read_table(path).to_pylist()
    assert [row["id"] for row in back] == result.indices
    for row in back:
        assert row["note"] == ROWS[row["id"]]["note"]
        assert row["conversations"] == ROWS[row["id"]]["conversations"]


def test_bytes_of_a_row_are_copied_not_rewritten(tmp_path):
    line = '{"id":"a",  "value": 1.10, "big": 123456789012345678901234567890}'
    (tmp_path / "data").write_text(line + "\n")
    result = select(tmp_path, dataset={"input": "data"}, method="random", budget={"fraction": 1.0})
    assert text(tmp_path, result, "rows") == line + "\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'[{"id": 1}, {"id": 2}', "breaks off"),
        (b'[{"id": 1}, {"id": 2', "Row 1 is not JSON"),
        (b'[{"id": 1} {"id": 2}]', "breaks off or is damaged after row 0"),
        (b'[{"id": "\xff"}]', "not UTF-8"),
        (b"[" * 100_000, "nested too deeply"),
        (b"[]", "no rows"),
        (b"", "not a JSON array"),
    ],
)
def test_damaged_arrays(tmp_path, content, message):
    (tmp_path / "data").write_bytes(content)
    with pytest.raises(JobError, match=message) as caught:
        read(tmp_path, input="data", format="llava_json")
    assert caught.value.code == "input_invalid"


def test_every_bad_row_is_listed_with_its_number(tmp_path):
    rows = [
        conversation("a"),
        "no object",
        conversation("a"),
        {**conversation("c"), "image": "  "},
        {**conversation("d"), "conversations": []},
        {**conversation("e"), "conversations": [{"from": "human", "value": ""}]},
        {**conversation("f", image=False), "conversations": [{"value": "<image> what"}]},
        {"image": "x.jpg", "conversations": [{"value": "<image>"}, {"value": "y"}]},
        {**conversation("h"), "id": 1.5},
        {**conversation("i"), "images": [], "image": {"bytes": None, "path": None}},
        {"id": "j", "messages": [{"role": "user", "content": "hello"}], "images": ["p.png", 3]},
        conversation("käse#0"),
    ]
    lines = [json.dumps(row) for row in rows]
    lines[1] = '{"id": '
    (tmp_path / "data").write_text("\n".join(lines))
    found = read(tmp_path, input="data", ids="unique")
    assert {bad.row: (bad.field, bad.problem.split(":")[0]) for bad in found.bad} == {
        1: ("", "is not JSON"),
        2: ("id", "repeats the id of row 0"),
        3: ("image", "is an empty path"),
        4: ("conversations", "is empty"),
        5: ("conversations/0", "has no text"),
        6: ("conversations", "has 1 <image> but 0 images"),
        7: ("id", "is missing"),
        8: ("id", "is neither text nor a whole number"),
        9: ("image", "has neither bytes nor a path"),
        10: ("images", "is not a path"),
    }
    spec = {
        "dataset": {"input": "data", "ids": "unique"},
        "method": "random",
        "budget": {"fraction": 1.0},
    }
    with pytest.raises(JobError, match="10 of 12 rows are not valid; the first is row 1") as error:
        select(tmp_path, **spec)
    assert error.value.details["bad_rows"] == 10
    result = select(tmp_path, **spec, on_bad_rows="skip")
    assert result.indices is not None
    assert sorted(result.indices) == [0, 11]
    assert result.validation.bad_rows == 10
    listed = [json.loads(line) for line in text(tmp_path, result, "bad_rows").splitlines()]
    assert [bad["row"] for bad in listed] == list(range(1, 11))


def test_embedded_pictures_of_parquet(tmp_path):
    pictures = [b"\x89PNG....", b"", b"<html>", None]
    rows = [{"id": i, "image": {"bytes": p, "path": None}} for i, p in enumerate(pictures)]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "data")
    found = read(tmp_path, input="data", format="parquet")
    assert [(bad.row, bad.problem) for bad in found.bad] == [
        (1, "is empty"),
        (2, "is no picture of a known format"),
        (3, "has neither bytes nor a path"),
    ]
    assert found.ids == ["0", "1", "2", "3"]


def test_llava_ids_and_sources(tmp_path):
    rows = [conversation(7), conversation(7), conversation(7, image=False), conversation(8)]
    found = read(tmp_path, "@source", rows=rows, ids="llava")
    assert found.ids == ["7::coco/7.jpg#0", "7::coco/7.jpg#1", "7", "8::coco/8.jpg"]
    assert found.groups == ["coco", "coco", "sharegpt", "coco"]
    assert not found.bad
    assert count_repeats(["a", "a", "a#1"]) == ["a#0", "a#1", "a#1"]
    assert source_of(None, "000123/4.jpg") == "coco"
    assert source_of(None, "vg/4.jpg") == "vg"
    assert source_of("flowers", "x/4.jpg") == "flowers"
    clash = [{"id": "a"}, {"id": "a"}, {"id": "a#1"}]
    assert [bad.row for bad in read(tmp_path, rows=clash, ids="llava").bad] == [2]


def test_rows_without_ids_have_their_numbers(tmp_path):
    assert read(tmp_path, rows=[{"x": 1}, {"x": 2}]).ids == ["0", "1"]
    named = read(tmp_path, rows=[{"x": 1}, {"x": 2}], id_field="x")
    assert named.ids == ["1", "2"]
    assert len(read(tmp_path, rows=[{"y": 1}], id_field="x").bad) == 1
    missing = read(tmp_path, "g", True, rows=[{"g": "a"}, {}])
    assert [(bad.row, bad.field) for bad in missing.bad] == [(1, "g")]


def safetensors(arrays):
    header, data = {"__metadata__": {"a": "b"}}, b""
    for name, (dtype, values) in arrays.items():
        raw = values.tobytes()
        offsets = [len(data), len(data) + len(raw)]
        header[name] = {"dtype": dtype, "shape": list(values.shape), "data_offsets": offsets}
        data += raw
    head = json.dumps(header).encode()
    return struct.pack("<Q", len(head)) + head + data


VALUES = np.arange(12, dtype=np.float32).reshape(4, 3)
IDS = ["d", "c", "b", "a"]


def written(form):
    buffer = io.BytesIO()
    if form == "npy":
        np.save(buffer, np.asfortranarray(VALUES))
    elif form == "npz":
        np.savez_compressed(buffer, x=VALUES, ids=np.array(IDS))
    elif form == "safetensors":
        buffer.write(safetensors({"x": ("F32", VALUES), "id": ("I64", np.arange(4))}))
    elif form == "bfloat16":
        half = (VALUES.view(np.uint32) >> 16).astype(np.uint16)
        buffer.write(safetensors({"x": ("BF16", half)}))
    elif form == "columns":
        columns = {f"t{t}": VALUES[:, t] for t in range(3)}
        pyarrow.parquet.write_table(pyarrow.table({"id": IDS, **columns, "note": IDS}), buffer)
    elif form == "lists":
        pyarrow.parquet.write_table(pyarrow.table({"id": IDS, "x": VALUES.tolist()}), buffer)
    else:
        buffer.write(json.dumps(dict(zip(IDS, VALUES.tolist(), strict=True))).encode())
    return buffer.getvalue()


@pytest.mark.parametrize(
    "form", ["npy", "npz", "safetensors", "bfloat16", "columns", "lists", "json"]
)
def test_every_format_of_numbers(tmp_path, form):
    (tmp_path / "f").write_bytes(written(form))
    table = load_feature(Feature(kind="trajectory", input="f"), context(tmp_path))
    assert table.values.tolist() == VALUES.tolist()
    expected = {"npy": None, "bfloat16": None, "safetensors": ["0", "1", "2", "3"]}
    assert table.ids == expected.get(form, IDS)


def test_lists_of_lists_and_named_columns(tmp_path):
    values = np.arange(24.0).reshape(2, 3, 4)
    pyarrow.parquet.write_table(
        pyarrow.table({"id": [1, 2], "s": values.tolist(), "key": ["x", "y"]}), tmp_path / "f"
    )
    table = load_feature(Feature(kind="singular_values", input="f"), context(tmp_path))
    assert table.values.tolist() == values.tolist()
    named = Feature(kind="singular_values", input="f", array="s", id_field="key")
    assert load_feature(named, context(tmp_path)).ids == ["x", "y"]
    with pytest.raises(JobError, match="no column nope"):
        load_feature(Feature(kind="score", input="f", columns=["nope"]), context(tmp_path))


def pickled():
    buffer = io.BytesIO()
    np.save(buffer, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    return buffer.getvalue()


def huge():
    buffer = io.BytesIO()
    header = {"descr": "<f8", "fortran_order": False, "shape": (10**15,)}
    np.lib.format.write_array_header_1_0(buffer, header)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "code", "message"),
    [
        (pickled(), "input_invalid", "pickled objects"),
        (huge(), "too_large", "says that it has"),
        (written("npy")[:-5], "input_invalid", "ends after 43 of 48"),
        (written("npz")[:200], "input_invalid", "not a valid npz"),
        (written("columns")[:60], "input_invalid", "not a valid parquet"),
        (safetensors({"x": ("F32", VALUES)})[:-3], "input_invalid", "ends after 45 of 48 bytes"),
        (b"\x93NUMPY\x09\x00", "input_invalid", "not a valid npy"),
        (b"hello", "input_invalid", "not a valid csv"),
        (b"\0\1\2", "input_invalid", "none of the known formats"),
        (b"{", "input_invalid", "not a valid json"),
        (b'{"a": [1, 2], "b": [1]}', "input_invalid", "not a valid json"),
        (safetensors({"x": ("F32", VALUES), "y": ("F32", VALUES)}), "input_invalid", "several"),
    ],
)
def test_damaged_numbers(tmp_path, content, code, message):
    (tmp_path / "f").write_bytes(content)
    with pytest.raises(JobError, match=message) as caught:
        load_feature(Feature(kind="trajectory", input="f"), context(tmp_path))
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("feature", "message"),
    [
        ({"kind": "score", "values": [[1.0, 2.0]]}, "expected 1 axes"),
        ({"kind": "trajectory", "values": [1.0, 2.0]}, "expected 2 axes"),
        ({"kind": "trajectory", "values": [[1.0], [2.0, 3.0]]}, "differ in length"),
        ({"kind": "score", "values": [1.0, 2.0], "ids": ["a", "a"]}, "more than once, e.g. a"),
    ],
)
def test_shapes_and_ids(tmp_path, feature, message):
    with pytest.raises(JobError, match=message):
        load_feature(Feature(**feature), context(tmp_path))


def test_parquet_without_pyarrow_says_so(tmp_path, monkeypatch):
    (tmp_path / "f").write_bytes(written("columns"))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(JobError, match="needs the package pyarrow"):
        load_feature(Feature(kind="trajectory", input="f"), context(tmp_path))


def test_ids_that_no_file_can_hold_are_cleaned(tmp_path):
    (tmp_path / "data").write_text('{"id": "a\\ud800", "g": "x\\u0000"}\n{"id": "b", "g": "y"}\n')
    result = select(
        tmp_path,
        dataset={"input": "data"},
        groups={"field": "g"},
        method="random",
        budget={"fraction": 1.0},
    )
    assert set(result.per_group) == {"x?", "y"}
    assert '"a?"' in text(tmp_path, result, "ids")
