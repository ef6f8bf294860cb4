"""predict-weak-to-strong and score-weak-labels as jobs: files, checks, whole runs."""

from __future__ import annotations

import io
import json
import sys
import tracemalloc
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest
from pydantic import ValidationError
from scipy.stats import spearmanr
from sklearn.datasets import load_digits

from methods.arrays import streams
from methods.arrays.files import open_array
from methods.errors import JobError
from methods.jobtype import InputRef, input_refs
from methods.local import LocalContext
from methods.predict_weak_to_strong import passes
from methods.predict_weak_to_strong.job import run
from methods.predict_weak_to_strong.result import Result
from methods.predict_weak_to_strong.spec import JOB, Spec
from methods.results import SCHEMA
from methods.score_weak_labels.job import run as run_scores
from methods.score_weak_labels.spec import Spec as ScoreSpec

GOLDEN = Path(__file__).parents[2] / "golden" / "theory"
REPRESENTATIONS = GOLDEN / "b2_digits_reps_seed0.npz"
#: Where the golden rows keep each label-free score of the job's defaults.
STORED = {"metric_op": "op_a0_b0.01", "metric_fro": "fro2_a0_b0.01", "dof_w": "dof_w"}


def solve(folder: Path, request: dict[str, Any]) -> Result:
    spec = Spec.model_validate(request)
    return run(spec, LocalContext(folder, spec))


def digits_request(**extra: Any) -> dict[str, Any]:
    """The stored digits representations as a request: one strong and 46 weak models."""
    names = np.load(REPRESENTATIONS, allow_pickle=False)["names"]
    file = str(REPRESENTATIONS)
    return {
        "strong": {"name": "strong", "representations": file, "array": "H_s_U"},
        "weak": [
            {"name": str(name), "representations": file, "array": f"H_w_U_{i:02d}"}
            for i, name in enumerate(names)
        ],
        **extra,
    }


def digits_labels() -> dict[str, np.ndarray]:
    """Labels of the stored rows: they are positions 800 to 1299 of a seeded permutation."""
    rows = np.random.default_rng(0).permutation(1797)[800:1300]
    digits = load_digits(return_X_y=True)[1][rows]
    return {"odd": np.where(digits % 2 == 1, 1.0, -1.0), "ge5": np.where(digits >= 5, 1.0, -1.0)}


def spearman_of_stored_rows(result: Result) -> dict[str, dict[str, float]]:
    """Spearman correlations with the measured errors, by label function and score.

    Takes any result for `digits_request()`, so that a run through the API can be checked too.
    """
    models = {model.name: model for model in result.weak}
    rows = json.loads((GOLDEN / "b2_digits_pairs.json").read_text())["rows"]
    found = {}
    for task in sorted({row["task"] for row in rows if row["seed"] == 0}):
        chosen = [row for row in rows if row["seed"] == 0 and row["task"] == task]
        errors = [row["err_w2s"] for row in chosen]
        found[task] = {
            score: float(spearmanr([getattr(models[r["weak"]], score) for r in chosen], errors)[0])
            for score in STORED
        }
        for score, key in STORED.items():
            stored = [row[key] for row in chosen]
            found[task][f"stored_{score}"] = float(spearmanr(stored, errors)[0])
    return found


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Result:
    return solve(tmp_path_factory.mktemp("digits"), digits_request())


def check_spearman_figures(result: Result) -> None:
    """Every group as from the stored scores, and the mean near that over all splits."""
    summary = json.loads((GOLDEN / "b2_digits_pairs.json").read_text())["spearman"]
    found = spearman_of_stored_rows(result)
    assert len(found) == 5
    for score, key in STORED.items():
        for scores in found.values():
            assert scores[score] == pytest.approx(scores[f"stored_{score}"], abs=1e-12)
        mean = np.mean([scores[score] for scores in found.values()])
        assert mean == pytest.approx(summary[key]["err_w2s"]["mean"], abs=0.06)


def test_digits_ranking_reproduces_the_stored_correlations(digits: Result) -> None:
    check_spearman_figures(digits)


def test_digits_result_says_what_it_is(digits: Result) -> None:
    by_name = {model.name: model for model in digits.weak}
    degenerate = by_name["mlp_h2_e1_p12"]
    assert (degenerate.status, degenerate.cka_linear, degenerate.rank) == ("degenerate", None, 46)
    assert degenerate.principal_angles_top10 == []
    assert "largest effective dimension" in digits.recommended.words
    assert digits.recommended.name == "rf_w200_p64" == digits.recommended.largest_dof_w
    assert digits.recommended.ranked_by == "metric_op"
    assert digits.rank_stability is not None
    assert digits.rank_stability.kendall_tau[0][0] == pytest.approx(1.0)
    assert 0.7 < (digits.rank_stability.lowest or 0) < 0.9
    for model in digits.weak:
        assert model.rank_ci is not None
        assert model.rank_ci[0] <= model.rank <= model.rank_ci[1]
        assert len(model.over_grid) == 3
    assert {warning.split(":")[0] for warning in digits.warnings} == {
        "few_rows",
        "no_ids",
        "degenerate",
    }
    for figure in digits.figures:
        assert figure.vega_lite["$schema"] == SCHEMA
        layers = figure.vega_lite.get("layer", [figure.vega_lite])
        assert 10 < sum(len(layer["data"]["values"]) for layer in layers) < 2000
    assert Result.model_validate_json(digits.model_dump_json()) == digits


def test_labels_give_the_stored_projection(tmp_path: Path) -> None:
    rows = json.loads((GOLDEN / "b2_digits_pairs.json").read_text())["rows"]
    for task, y in digits_labels().items():
        np.save(tmp_path / f"{task}.npy", y)
        result = solve(
            tmp_path,
            digits_request(
                labels={"file": f"{task}.npy"}, beta_s=1e-3, beta_w=1e-3, n_bootstrap=0, grid=[]
            ),
        )
        assert result.recommended.ranked_by == "label_projection"
        models = {model.name: model for model in result.weak}
        chosen = [row for row in rows if row["seed"] == 0 and row["task"] == task]
        assert len(chosen) > 10
        for row in chosen:
            found = models[row["weak"]].label_projection
            assert found == pytest.approx(row["gap_label"], abs=1e-6)
        predicted = [models[row["weak"]].predicted_err_w2s for row in chosen]
        assert spearmanr(predicted, [row["err_w2s"] for row in chosen])[0] > 0.93


def test_classes_and_samples_of_labels(tmp_path: Path) -> None:
    """±1 columns from two classes give the same; a sample of labels ranks nearly as well."""
    y = digits_labels()["odd"]
    np.save(tmp_path / "real.npy", y)
    np.save(tmp_path / "classes.npy", np.where(y > 0, 7, 3))
    sample = y.copy()
    sample[np.random.default_rng(1).permutation(500)[:250]] = np.nan
    np.save(tmp_path / "sample.npy", sample)
    options = {"n_bootstrap": 0, "grid": []}
    full = solve(tmp_path, digits_request(labels={"file": "real.npy"}, **options))
    classes = solve(
        tmp_path,
        digits_request(labels={"file": "classes.npy", "kind": "classification"}, **options),
    )
    part = solve(tmp_path, digits_request(labels={"file": "sample.npy"}, **options))
    projections = [[m.label_projection for m in r.weak] for r in (full, classes, part)]
    assert projections[0] == pytest.approx(projections[1], abs=1e-12)
    assert part.n_labelled == 250
    assert spearmanr(projections[0], projections[2])[0] > 0.95
    assert abs(np.mean(np.subtract(projections[0], projections[2]))) < 0.05
    assert any(warning.startswith("partial_labels") for warning in part.warnings)
    assert part.strong.ceiling_error == pytest.approx(full.strong.ceiling_error, rel=0.3)


def small(folder: Path, n: int = 400) -> dict[str, Any]:
    """A small request over npy files: a good, a poor and a constant supervisor."""
    rng = np.random.default_rng(0)
    h = rng.standard_normal((n, 12)) * np.arange(1, 13) ** -0.5
    np.save(folder / "strong.npy", h.astype(np.float32))
    np.save(folder / "good.npy", (h[:, :9] @ rng.standard_normal((9, 9))).astype(np.float64))
    np.save(folder / "poor.npy", rng.standard_normal((n, 5)).astype(np.float16))
    np.save(folder / "constant.npy", np.ones((n, 3)))
    return {
        "strong": {"name": "s", "representations": "strong.npy"},
        "weak": [{"name": k, "representations": f"{k}.npy"} for k in ("poor", "good", "constant")],
        "n_bootstrap": 10,
    }


def test_every_file_format_gives_the_same(tmp_path: Path) -> None:
    request = small(tmp_path)
    expected = solve(tmp_path, request)
    assert expected.recommended.name == "good"
    h = np.load(tmp_path / "strong.npy")
    np.savez_compressed(tmp_path / "strong.npz", other=np.zeros(3), h=h)
    np.save(tmp_path / "fortran.npy", np.asfortranarray(h))
    np.save(tmp_path / "a.npy", h[:130])
    np.save(tmp_path / "b.npy", h[130:])
    (tmp_path / "h.safetensors").write_bytes(safetensors({"x": h[:, :2], "h": h}))
    for given in (
        {"representations": "strong.npz", "array": "h"},
        {"representations": "fortran.npy"},
        {"representations": ["a.npy", "b.npy"]},
        {"representations": "h.safetensors", "array": "h"},
    ):
        found = solve(tmp_path, {**request, "strong": {"name": "s", **given}})
        assert [m.metric_op for m in found.weak] == pytest.approx(
            [m.metric_op for m in expected.weak], abs=1e-13
        )
        assert [m.rank_ci for m in found.weak] == [m.rank_ci for m in expected.weak]


def safetensors(arrays: dict[str, np.ndarray], dtype: str = "F32") -> bytes:
    header, data = {}, b""
    for name, values in arrays.items():
        raw = values.tobytes()
        offsets = [len(data), len(data) + len(raw)]
        header[name] = {"dtype": dtype, "shape": list(values.shape), "data_offsets": offsets}
        data += raw
    text = json.dumps({"__metadata__": {"format": "np"}, **header}).encode()
    return len(text).to_bytes(8, "little") + text + data


def test_bfloat16_is_read_as_the_upper_half_of_float32() -> None:
    values = np.array([[1.5, -2.0], [0.125, 3.0]], dtype=np.float32)
    upper = (values.view(np.uint32) >> 16).astype(np.uint16)
    rows = open_array(io.BytesIO(safetensors({"h": upper}, "BF16")), None, "f")
    assert rows.read(5).tolist() == values.tolist()


@pytest.mark.parametrize("layout", ["columns", "list"])
def test_parquet(tmp_path: Path, layout: str) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    request = small(tmp_path)
    expected = solve(tmp_path, request)
    h = np.load(tmp_path / "strong.npy")
    columns = {"id": pyarrow.array([f"row{i}" for i in range(len(h))])}
    if layout == "columns":
        columns |= {f"c{i}": pyarrow.array(h[:, i]) for i in range(h.shape[1])}
    else:
        columns["h"] = pyarrow.array(list(h))
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.table(columns), tmp_path / "h.parquet")
    array = None if layout == "columns" else "h"
    given = {"name": "s", "representations": "h.parquet", "array": array, "ids": "id"}
    found = solve(tmp_path, {**request, "strong": given})
    assert [m.metric_op for m in found.weak] == pytest.approx(
        [m.metric_op for m in expected.weak], abs=1e-13
    )


def test_parquet_without_pyarrow_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(JobError, match="pyarrow is not installed") as caught:
        open_array(io.BytesIO(b"PAR1....PAR1"), None, "h.parquet")
    assert caught.value.code == "input_unreadable"


def test_chunk_size_does_not_change_the_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = small(tmp_path)
    expected = solve(tmp_path, request)
    monkeypatch.setattr(streams, "CHUNK_BYTES", 64 * 8)
    found = solve(tmp_path, request)
    assert [m.metric_fro for m in found.weak] == pytest.approx(
        [m.metric_fro for m in expected.weak], abs=1e-12
    )


@pytest.mark.parametrize("method", ["exact", "randomized"])
def test_memory_does_not_grow_with_the_rows(tmp_path: Path, method: str) -> None:
    """Twice the rows, the same peak; the files hold many times what the job holds at a time."""
    peaks = []
    rng = np.random.default_rng(0)
    for n in (70_000, 140_000):
        for name, width in (("strong", 24), ("weak", 16)):
            np.save(tmp_path / f"{name}.npy", rng.standard_normal((n, width)))
        request = {
            "strong": {"name": "s", "representations": "strong.npy"},
            "weak": [{"name": "w", "representations": "weak.npy"}],
            "method": method,
        }
        tracemalloc.start()
        solve(tmp_path, {**request, "n_bootstrap": 5})
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.05 * peaks[0]
    assert peaks[1] < 0.6 * 140_000 * 40 * 8


def test_randomized_run_is_close_to_the_exact_one(tmp_path: Path) -> None:
    request = small(tmp_path)
    exact = solve(tmp_path, {**request, "method": "exact"})
    fast = solve(tmp_path, {**request, "method": "randomized"})
    assert [m.metric_op for m in fast.weak] == pytest.approx(
        [m.metric_op for m in exact.weak], abs=1e-8
    )


def test_ids_name_the_row_that_differs(tmp_path: Path) -> None:
    request = small(tmp_path)
    ids = np.array([f"q{i}" for i in range(400)])
    other = ids.copy()
    other[211] = "q999"
    for name, given in (("strong", ids), ("good", ids), ("poor", other)):
        np.savez(tmp_path / f"{name}.npz", h=np.load(tmp_path / f"{name}.npy"), ids=given)

    def model(name: str) -> dict[str, str]:
        return {"name": name, "representations": f"{name}.npz", "array": "h", "ids": "ids"}

    request["strong"] = model("strong")
    request["weak"] = [model("good")]
    assert not any(w.startswith("no_ids") for w in solve(tmp_path, request).warnings)
    request["weak"] = [model("poor")]
    with pytest.raises(JobError, match=r"row 211 is q211 in strong and q999 in poor") as caught:
        solve(tmp_path, request)
    assert caught.value.details["row"] == 211


class Broken:
    """Files that must be refused, with the words of the refusal."""

    cases = [  # noqa: RUF012
        ("rows", lambda f: np.save(f, np.ones((399, 3))), "399 rows, the strong model has 400"),
        ("nan", lambda f: np.save(f, _with(np.nan)), r"row 7, column 1 is nan"),
        ("inf", lambda f: np.save(f, _with(np.inf)), r"row 7, column 1 is inf"),
        ("cube", lambda f: np.save(f, np.ones((400, 3, 2))), "one or two non-empty dimensions"),
        ("text", lambda f: np.save(f, np.full((400, 2), "a")), "are no numbers"),
        ("junk", lambda f: f.write_bytes(b"hello there, no array"), "no npy, npz, safetensors"),
        ("empty", lambda f: f.write_bytes(b""), "no npy, npz, safetensors"),
        ("cut", lambda f: _cut(f), "ends before the rows after row"),
        ("objects", lambda f: np.save(f, np.array([[{}]] * 400)), "holds Python objects"),
    ]


def _with(value: float) -> np.ndarray:
    h = np.ones((400, 3))
    h[7, 1] = value
    return h


def _cut(file: Path) -> None:
    np.save(file, np.ones((400, 3)))
    file.write_bytes(file.read_bytes()[:-100])


@pytest.mark.parametrize(("name", "write", "words"), Broken.cases, ids=[c[0] for c in Broken.cases])
def test_bad_files_are_refused_by_name(tmp_path: Path, name: str, write: Any, words: str) -> None:
    request = small(tmp_path)
    write(tmp_path / "bad.npy")
    request["weak"].append({"name": "bad-model", "representations": "bad.npy"})
    with pytest.raises(JobError, match=words) as caught:
        solve(tmp_path, request)
    assert caught.value.code == "input_invalid"
    assert "bad-model" in caught.value.message


def test_other_refusals(tmp_path: Path) -> None:
    request = small(tmp_path)
    constant = {"name": "s", "representations": "constant.npy"}
    with pytest.raises(JobError, match="all rows are equal"):
        solve(tmp_path, {**request, "strong": constant, "weak": request["weak"][:1]})
    missing = {"name": "s", "representations": "nowhere.npy"}
    with pytest.raises(JobError, match=r"nowhere\.npy") as caught:
        solve(tmp_path, {**request, "strong": missing})
    assert caught.value.code == "input_unreadable"
    np.savez(tmp_path / "two.npz", a=np.ones((400, 2)), b=np.ones((400, 2)))
    with pytest.raises(JobError, match="needs `array`, it holds a, b"):
        solve(tmp_path, {**request, "strong": {"name": "s", "representations": "two.npz"}})
    for labels, words in (
        (np.ones(400), "all labels are the same"),
        (np.ones(399), "399 rows, the representations have 400"),
        (np.where(np.arange(400) < 390, np.nan, np.arange(400.0)), "10 labelled rows"),
    ):
        np.save(tmp_path / "y.npy", labels)
        with pytest.raises(JobError, match=words):
            solve(tmp_path, {**request, "labels": {"file": "y.npy"}})
    np.save(tmp_path / "few.npy", np.random.default_rng(0).normal(size=(49, 3)))
    few = {"name": "f", "representations": "few.npy"}
    with pytest.raises(JobError, match="49 rows, 50 are needed"):
        solve(tmp_path, {**request, "strong": few})


def test_limits_are_checked_from_the_headers(tmp_path: Path) -> None:
    """A header may promise far more than fits; nothing of it is read."""
    request = small(tmp_path)
    for name, shape, dtype, words in (
        ("wide", (400, 65537), "<f8", "at most 65536 columns"),
        ("long", (400,), "<U100000", "4096 bytes are read"),
    ):
        with (tmp_path / f"{name}.npy").open("wb") as file:
            np.lib.format.write_array_header_1_0(
                file, {"descr": dtype, "fortran_order": False, "shape": shape}
            )
        with pytest.raises(JobError, match=words) as caught:
            solve(tmp_path, {**request, "strong": {"name": "s", "representations": f"{name}.npy"}})
        assert caught.value.code == "too_large"
    np.save(tmp_path / "y.npy", np.ones((400, 101)))
    with pytest.raises(JobError, match="101 label columns") as caught:
        solve(tmp_path, {**request, "labels": {"file": "y.npy"}})
    assert caught.value.code == "too_large"
    np.save(tmp_path / "y.npy", np.arange(400) / 2)
    with pytest.raises(JobError, match="one whole number a row"):
        solve(tmp_path, {**request, "labels": {"file": "y.npy", "kind": "classification"}})


def test_specs_are_checked() -> None:
    def spec(**extra: Any) -> Spec:
        strong = {"name": "s", "representations": "a"}
        weak = [{"name": "w", "representations": "b"}]
        return Spec.model_validate({"strong": strong, "weak": weak, **extra})

    assert [pointer for pointer, _ in input_refs(spec())] == [
        "/strong/representations",
        "/weak/0/representations",
    ]
    for extra, words in (
        ({"weak": [{"name": "s", "representations": "b"}]}, "unique"),
        ({"rank_by": "label_projection"}, "needs labels"),
        ({"grid": [0.1, 0.1]}, "must differ"),
        ({"beta_s": 0}, "greater than or equal"),
        ({"beta_s": float("nan")}, "finite"),
        ({"surprise": 1}, "Extra inputs"),
        ({"weak": []}, "at least 1"),
    ):
        with pytest.raises(ValidationError, match=words):
            spec(**extra)
    Spec.model_validate(JOB.example)
    sharded = spec(strong={"name": "s", "representations": ["a", "b"]})
    assert sharded.strong.files == (InputRef("a"), InputRef("b"))


def test_wide_arrays_take_the_randomized_route(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = small(tmp_path)
    called = []
    original = passes.randomized_spectrum

    def spy(*args: Any, **options: Any) -> Any:
        called.append(args[1])
        return original(*args, **options)

    monkeypatch.setattr(passes, "randomized_spectrum", spy)
    monkeypatch.setattr(passes, "RANDOMIZED_ABOVE", 10)
    solve(tmp_path, request)
    assert called == [12]
    monkeypatch.setattr(passes, "MAX_EXACT_COLUMNS", 10)
    with pytest.raises(JobError, match="has to be randomized"):
        solve(tmp_path, {**request, "method": "exact"})


class Pipe(io.RawIOBase):
    """A stream that cannot seek, as object stores give."""

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        part = self._data.read(len(buffer))
        buffer[: len(part)] = part
        return len(part)


def test_streams_that_cannot_seek(tmp_path: Path) -> None:
    request = small(tmp_path)

    class Remote(LocalContext):
        def open_input(self, ref: InputRef) -> BinaryIO:
            with super().open_input(ref) as file:
                return io.BufferedReader(Pipe(file.read()))  # type: ignore[return-value]

    np.savez(tmp_path / "strong.npz", h=np.load(tmp_path / "strong.npy"))
    spec = Spec.model_validate(
        {**request, "strong": {"name": "s", "representations": "strong.npz"}}
    )
    found = run(spec, Remote(tmp_path, spec))
    assert found.weak == solve(tmp_path, request).weak


def test_scores_of_weak_labels_match_the_dense_definition(tmp_path: Path) -> None:
    small(tmp_path)
    rng = np.random.default_rng(4)
    y = rng.standard_normal(400)
    np.save(tmp_path / "y.npy", y)
    spec = ScoreSpec.model_validate(
        {
            "strong": {"name": "s", "representations": "strong.npy"},
            "weak": {"name": "w", "representations": "poor.npy"},
            "weak_labels": {"file": "y.npy"},
            "keep_fraction": 0.25,
        }
    )
    result = run_scores(spec, LocalContext(tmp_path, spec))
    scores = np.load(tmp_path / "artifacts" / result.scores_artifact)
    kept = np.load(tmp_path / "artifacts" / result.kept_artifact)

    def smoother(name: str) -> np.ndarray:
        h = np.load(tmp_path / name).astype(float)
        h = h - h.mean(axis=0)
        k = h @ h.T / np.sum(h**2)
        return k @ np.linalg.inv(k + 0.01 * np.eye(400))

    gap = smoother("strong.npy") @ (np.eye(400) - smoother("poor.npy")) @ y
    assert scores == pytest.approx(np.abs(gap), abs=1e-10)
    assert sorted(np.argsort(-scores)[:100]) == kept.tolist()
    assert result.threshold == scores[kept].min()
    assert result.mean_square == pytest.approx(np.mean(gap**2), abs=1e-12)
    assert result.experimental is True
    y[3] = np.nan
    np.save(tmp_path / "y.npy", y)
    with pytest.raises(JobError, match="1 rows have no label"):
        run_scores(spec, LocalContext(tmp_path, spec))


def labelled_request(folder: Path, labels: np.ndarray, **ids: np.ndarray) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 6))
    given = {name: {"ids": value} for name, value in ids.items()}
    np.savez(folder / "s.npz", h=x, **given.get("strong", {}))
    np.savez(folder / "w.npz", h=x[:, :3], **given.get("weak", {}))
    np.savez(folder / "y.npz", y=labels)
    named = {"ids": "ids"} if ids else {}
    return {
        "strong": {"name": "s", "representations": "s.npz", "array": "h", **named},
        "weak": [{"name": "w", "representations": "w.npz", "array": "h", **named}],
        "labels": {"file": "y.npz", "array": "y", "kind": "classification"},
    }


def test_plus_and_minus_one_are_two_classes(tmp_path: Path) -> None:
    signs = np.where(np.arange(80) % 3 == 0, 1, -1)
    found = []
    for labels in (signs, (signs > 0).astype(int)):
        result = solve(tmp_path, labelled_request(tmp_path, labels))
        found.append(result.weak[0].label_projection)
    assert found[0] == pytest.approx(found[1])
    unknown = np.where(np.arange(80) % 3 == 0, 1, -2)
    with pytest.raises(JobError, match="a class below 0 is an unknown label"):
        solve(tmp_path, labelled_request(tmp_path, unknown))


def test_ids_as_bytes_are_the_same_ids(tmp_path: Path) -> None:
    names = np.array([f"q{n}" for n in range(80)])
    labels = np.arange(80) % 2
    request = labelled_request(tmp_path, labels, strong=names, weak=names.astype("S"))
    assert solve(tmp_path, request).weak[0].name == "w"
    other = names.astype("S")
    other[5] = b"x"
    with pytest.raises(JobError, match="row 5 is q5 in s and x in w"):
        solve(tmp_path, labelled_request(tmp_path, labels, strong=names, weak=other))
