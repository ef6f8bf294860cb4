"""What would choose wrongly without a word: inputs that mean nothing, files that are others."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from methods.errors import JobError
from methods.local import LocalContext
from methods.select_subset.algorithms import d2
from methods.select_subset.algorithms.embeddings import neighbours
from methods.select_subset.algorithms.xmas import default_clusters
from methods.select_subset.data.dataset import source_of
from methods.select_subset.data.images import Archive, BadImageError, ImageFiles, decode
from methods.select_subset.data.row_contents import content_images
from methods.select_subset.job import run
from methods.select_subset.result import Result
from methods.select_subset.spec import Spec


def choose(folder: Path, **spec: Any) -> Result:
    parsed = Spec.model_validate({"budget": {"count": 4}, **spec})
    return run(parsed, LocalContext(folder / "job", parsed, inputs=folder))


def embedding(values: np.ndarray) -> dict[str, Any]:
    return {"kind": "embedding", "values": values.tolist()}


def vectors(n: int = 12) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(n, 3)) + 1


def test_near_copies_are_taken_once() -> None:
    rng = np.random.default_rng(0)
    x = np.repeat(rng.normal(size=(100, 50)), 2, axis=0) + rng.normal(size=(200, 50)) * 1e-3
    near, squared = neighbours(x, 5)
    graph = d2.graph_scores(1 + 0.1 * rng.random(200), near, squared)
    picks = d2.true_picks(graph, near, squared, 100)
    assert len(set((picks // 2).tolist())) == 100
    # Each time the highest of those left, by definition.
    value, left = graph.copy(), set(range(200))
    for row in picks.tolist():
        assert value[row] == pytest.approx(max(value[k] for k in left))
        left.remove(row)
        gone = value[row]
        for other, distance in zip(near[row].tolist(), squared[row].tolist(), strict=True):
            if other in left:
                value[other] -= gone * np.exp(-0.4 * distance)


def test_negative_scores_keep_their_order(tmp_path: Path) -> None:
    x = vectors() * 100
    result = choose(
        tmp_path,
        method="d2",
        features=[embedding(x), {"kind": "score", "values": (-np.arange(12.0)).tolist()}],
    )
    assert result.indices == [0, 1, 2, 3]
    assert any("negative" in warning for warning in result.warnings)


@pytest.mark.parametrize(
    ("rows", "budget", "clusters"),
    [(600, 60, 12), (10**6, 10**5, 1000), (100, 6, 3), (30, 20, 8), (1000, 1, 1)],
)
def test_clusters_follow_the_budget(rows: int, budget: int, clusters: int) -> None:
    assert default_clusters(rows, budget) == clusters


def test_more_clusters_than_half_of_the_picks_are_warned_of(tmp_path: Path) -> None:
    values = np.random.default_rng(0).random((40, 3)).cumsum(axis=1)
    feature = {"kind": "trajectory", "values": values.tolist()}
    for clusters, warned in ((None, False), (3, True)):
        result = choose(tmp_path, method="xmas", features=[feature], params={"clusters": clusters})
        assert any("near-copies" in one for one in result.warnings) is warned


@pytest.mark.parametrize(
    ("bad", "problem"), [(0.0, "all zeros"), (1e30, "beyond float32"), (np.nan, "not a finite")]
)
def test_vectors_that_say_nothing_are_bad_rows(tmp_path: Path, bad: float, problem: str) -> None:
    x = vectors()
    x[3] = bad
    if not np.isfinite(bad):
        np.save(tmp_path / "x.npy", x)
        feature: dict[str, Any] = {"kind": "embedding", "input": "x.npy"}
    else:
        feature = embedding(x)
    with pytest.raises(JobError, match=problem):
        choose(tmp_path, method="semdedup", features=[feature])
    result = choose(tmp_path, method="semdedup", features=[feature], on_bad_rows="skip")
    assert 3 not in (result.indices or [])


def test_columns_of_row_numbers_are_no_checkpoints(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(np.random.default_rng(0).random((12, 3)), columns=["a", "b", "c"])
    frame.index = frame.index[::-1] * 1000
    frame["Unnamed: 0"] = range(12)
    frame.to_parquet(tmp_path / "x.parquet")
    feature = {"kind": "trajectory", "input": "x.parquet"}
    result = choose(tmp_path, method="xmas", features=[feature])
    assert len(result.details["checkpoint_variance"]) == 3


def test_features_of_other_rows_show_an_id_of_each(tmp_path: Path) -> None:
    rows = [{"id": f"{k:06}", "text": "a"} for k in range(12)]
    feature = embedding(vectors()) | {"ids": list(range(12))}
    with pytest.raises(JobError, match="feature has '0', the rows have '000000'"):
        choose(tmp_path, method="semdedup", dataset={"rows": rows}, features=[feature])


def test_vectors_of_two_models_are_named(tmp_path: Path) -> None:
    features = [
        {"kind": "image_embedding", "values": np.ones((12, 4)).tolist()},
        {"kind": "text_embedding", "values": np.ones((12, 3)).tolist()},
    ]
    with pytest.raises(JobError, match=r"\(12, 4\) and \(12, 3\)"):
        choose(tmp_path, method="clip_score", features=features)


ROWS = [{"id": str(k), "text": f"t{k}"} for k in range(12)]


@pytest.mark.parametrize("named", [None, "jsonl", "llava_json"])
@pytest.mark.parametrize("array", [True, False])
def test_a_file_is_read_by_its_content(tmp_path: Path, named: str | None, array: bool) -> None:
    text = json.dumps(ROWS) if array else "\n".join(map(json.dumps, ROWS))
    (tmp_path / "rows").write_text(text)
    dataset = {"input": "rows"} | ({"format": named} if named else {})
    assert choose(tmp_path, method="random", dataset=dataset).candidates == 12


def test_what_follows_an_array_is_not_lost(tmp_path: Path) -> None:
    (tmp_path / "rows").write_text(json.dumps(ROWS) * 2)
    with pytest.raises(JobError, match="More follows after the JSON array of 12 rows"):
        choose(tmp_path, method="random", dataset={"input": "rows"})


def test_ordinary_turns_without_text_are_no_bad_rows(tmp_path: Path) -> None:
    call = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f"}}]}
    turns = [
        {"role": "system", "content": ""},
        {"role": "developer", "content": "x"},
        {"role": "user", "content": "q"},
        call,
        {"role": "tool", "content": ""},
        {"role": "assistant", "content": "a"},
    ]
    rows = [{"id": str(k), "messages": turns} for k in range(6)]
    feature = embedding(vectors(6))
    result = choose(tmp_path, method="semdedup", dataset={"rows": rows}, features=[feature])
    assert result.selected == 4


@pytest.mark.parametrize(
    ("part", "image"),
    [
        ({"type": "image", "image": "a.png"}, ["a.png"]),
        ({"type": "image_url", "image_url": {"url": "b.png"}}, ["b.png"]),
        ({"type": "image", "path": "c.png"}, ["c.png"]),
        ({"type": "image"}, []),
        ({"type": "text", "text": "a.png"}, []),
    ],
)
def test_images_of_content_parts(part: dict[str, Any], image: list[str]) -> None:
    assert content_images({"messages": [{"role": "user", "content": [part]}]}) == image


def picture(values: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(values).save(out, "PNG" if values.dtype != np.float32 else "TIFF")
    return out.getvalue()


def test_many_grey_levels_become_256() -> None:
    ramp = np.linspace(0, 65_535, 4096).astype(np.uint16).reshape(64, 64)
    seen = np.asarray(decode(picture(ramp)))
    assert len(np.unique(seen)) == 256
    assert (seen[..., 0] == ramp >> 8).all()
    floats = np.linspace(0, 1, 256, dtype=np.float32).reshape(16, 16)
    assert len(np.unique(np.asarray(decode(picture(floats))))) == 256


def test_pictures_are_turned_as_their_camera_says() -> None:
    turned, out = Image.new("RGB", (4, 2)), io.BytesIO()
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(out, "JPEG", exif=exif)
    assert decode(out.getvalue()).size == (2, 4)


def test_folders_of_an_archive_may_be_others(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for k in range(3):
            archive.writestr(f"images/coco/{k}.png", bytes([k]))
    spec = Spec.model_validate(
        {"budget": {"count": 1}, "method": "random", "dataset": {"rows": [{}]}}
    )
    opened = Archive("a.zip", LocalContext(tmp_path / "job", spec, inputs=tmp_path))  # type: ignore[arg-type]
    for path in ("coco/0.png", "coco/2.png", "/mnt/data/coco/1.png", "images/coco/1.png"):
        assert opened.read(path) == bytes([int(path[-5])])
    with pytest.raises(BadImageError, match=r"which has images/coco/0\.png"):
        opened.read("coco/9.png")
    opened.close()


def test_large_parquet_is_written_in_row_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    from methods.select_subset.data import table_files

    monkeypatch.setattr(table_files, "_GROUP_BYTES", 10_000)
    rows = [{"id": str(k), "text": f"{k} " * 500, "more": {"a": [k, None]}} for k in range(300)]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "rows.parquet")
    feature = {"kind": "score", "values": np.random.default_rng(0).random(300).tolist()}
    result = choose(
        tmp_path,
        method="loss",
        dataset={"input": "rows.parquet"},
        features=[feature],
        budget={"count": 100},
    )
    written = parquet.ParquetFile(tmp_path / "job/artifacts/selected.parquet")
    assert written.read().to_pylist() == [rows[k] for k in result.indices or []]
    assert written.num_row_groups > 5
    assert not list((tmp_path / "job").rglob("*.spool"))


def test_repeated_ids_count_where_nothing_is_matched_by_them(tmp_path: Path) -> None:
    rows = [{"id": "a" if k < 2 else str(k), "text": "t"} for k in range(12)]
    given: dict[str, Any] = {"method": "semdedup", "dataset": {"rows": rows}}
    result = choose(tmp_path, **given, features=[embedding(vectors())])
    assert result.validation.bad_rows == 0
    by_id = embedding(vectors()) | {"ids": ["a", "b", *(str(k) for k in range(2, 12))]}
    with pytest.raises(JobError, match="set ids to llava"):
        choose(tmp_path, **given, features=[by_id])


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("coco/train2017/1.jpg", "coco"),
        ("000000001.jpg", "(no folder)"),
        ("/mnt/data/gqa/images/1.jpg", "gqa"),
        ("/mnt/pictures/1.jpg", "mnt"),
        ("00123/1.jpg", "coco"),
    ],
)
def test_sources_of_paths(path: str, source: str) -> None:
    assert source_of(None, path) == source


def test_a_group_for_every_row_is_refused(tmp_path: Path) -> None:
    rows = [{"id": str(k), "text": "t", "url": f"u{k}"} for k in range(1200)]
    with pytest.raises(JobError, match="url makes 1,200 groups of 1,200 rows"):
        choose(tmp_path, method="random", dataset={"rows": rows}, groups={"field": "url"})


def test_several_archives_and_a_prefix_of_the_paths(tmp_path: Path) -> None:
    refs = []
    for number in range(2):
        with zipfile.ZipFile(tmp_path / f"{number}.zip", "w") as archive:
            archive.writestr(f"part{number}/a.png", bytes([number]))
        refs.append(f"{number}.zip")
    ctx = LocalContext(tmp_path / "job", inputs=tmp_path)
    given = Spec.model_validate(
        {
            "dataset": {"rows": [{"id": 1}], "images": refs, "strip_prefix": "/mnt/data/"},
            "method": "random",
            "budget": {"count": 1},
        }
    ).dataset
    assert given is not None
    assert given.images is not None
    files = ImageFiles(given.images, ctx, given.strip_prefix)
    assert files.read("/mnt/data/part0/a.png") == b"\0"
    assert files.read("/mnt/data/part1/a.png") == b"\1"
    with pytest.raises(BadImageError, match="is not in the archive, which has part1"):
        files.read("/mnt/data/part2/b.png")
    files.close()
