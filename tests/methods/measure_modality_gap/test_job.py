"""measure-modality-gap: from states in files to distances, comparison, risk and a report."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from methods.errors import JobError
from methods.local import LocalContext
from methods.measure_modality_gap.result import Result
from methods.measure_modality_gap.spec import Spec
from methods.registry import load_registry
from methods.typing import FloatArray

WIDTH, PAIRS = 6, 40


def states(folder: Path, name: str, apart: float = 1.0, seed: int = 0, layers: int = 3) -> None:
    """A file of both modalities with their pairs."""
    rng = np.random.default_rng(seed)
    arrays: dict[str, Any] = {
        "image_pair": np.repeat(np.arange(PAIRS), 8),
        "text_pair": np.repeat(np.arange(PAIRS), 6),
    }
    for layer in range(layers):
        arrays[f"v{layer}"] = rng.normal(size=(PAIRS * 8, WIDTH)) * 2 + apart
        arrays[f"t{layer}"] = rng.normal(size=(PAIRS * 6, WIDTH)) + 0.5
    np.savez(folder / f"{name}.npz", **arrays)


def subject(name: str, layers: int = 3, pairs: bool = True, **more: Any) -> dict[str, Any]:
    sides = {
        side: {
            "inputs": [f"{name}.npz"],
            "arrays": {
                str(layer): f"{side[0].replace('i', 'v')}{layer}" for layer in range(layers)
            },
            **({"pair": f"{side}_pair"} if pairs else {}),
        }
        for side in ("image", "text")
    }
    return {"name": name, "representations": {**sides, **more}}


def run(folder: Path, subjects: list[dict[str, Any]], out: str = "out", **spec: Any) -> Result:
    parsed = Spec.model_validate({"subjects": subjects, "permutations": 20, **spec})
    ctx = LocalContext(folder / out, parsed, inputs=folder)
    found = load_registry()["measure-modality-gap"].load_runner()(parsed, ctx)
    assert isinstance(found, Result)
    return found


def array(folder: Path, name: str, key: str) -> FloatArray:
    with np.load(folder / name) as arrays:
        return arrays[key]


def test_two_subjects_side_by_side(tmp_path: Path) -> None:
    states(tmp_path, "before", apart=4.0)
    states(tmp_path, "after", apart=0.8)
    found = run(tmp_path, [subject("before"), subject("after")])
    before, after = found.subjects
    assert [one.layer for one in before.layers] == [0, 1, 2]
    assert before.mir_exact.layers == [1, 2]
    assert before.mir_exact.full
    assert before.pairs == PAIRS
    for one in (before, after):
        assert one.mir_exact.value is not None
        assert one.mir_exact.low is not None
        assert one.mir_exact.high is not None
        assert one.mir_exact.low < one.mir_exact.value < one.mir_exact.high
        assert one.mir_exact.value == pytest.approx(
            np.log10(sum(layer.fid for layer in one.layers[1:]))
        )
        assert all(layer.null and layer.null.p < 0.05 for layer in one.layers)
    assert (after.mir_exact.high or 0) < (before.mir_exact.low or 0)
    titles = [getattr(block, "title", "") for block in found.blocks]
    assert "Distance by layer, side by side" in titles
    assert any("mostly a matter of length" in text for text in found.warnings)
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out/artifacts/layers.csv").read_text())))
    assert len(rows) == 6
    assert float(rows[0]["fid"]) == before.layers[0].fid


def test_a_known_subject_is_not_measured_again(tmp_path: Path) -> None:
    states(tmp_path, "one")
    first = run(tmp_path, [subject("one")])
    renamed = {**subject("one"), "name": "another name"}
    parsed = Spec.model_validate({"subjects": [renamed], "permutations": 20})
    ctx = LocalContext(tmp_path / "out", parsed, inputs=tmp_path)
    reused = [child.reused for child in _children(ctx, parsed)]
    assert reused == [True]
    assert first.subjects[0].name == "one"


def _children(ctx: LocalContext, spec: Spec) -> list[Any]:
    asked: list[Any] = []
    real = ctx.fan_out

    def watched(job_type: str, specs: Any) -> Any:
        for child in real(job_type, specs):
            asked.append(child)
            yield child

    ctx.fan_out = watched  # type: ignore[method-assign]
    load_registry()["measure-modality-gap"].load_runner()(spec, ctx)
    return asked


def test_shards_of_states_and_of_moments_are_the_whole(tmp_path: Path) -> None:
    """Without outliers to replace, whose medians a shard cannot know."""
    states(tmp_path, "whole")
    whole = run(tmp_path, [subject("whole", pairs=False)], outliers="none")
    names = ["c", "a", "d", "b"]
    for place, name in enumerate(names):
        shard = {}
        for layer in range(3):
            for side in "vt":
                full = array(tmp_path, "whole.npz", f"{side}{layer}")
                shard[f"{side}{layer}"] = np.array_split(full, 4)[place]
        np.savez(tmp_path / f"{name}.npz", **shard)
    together = subject("whole", pairs=False)
    for side in ("image", "text"):
        together["representations"][side]["inputs"] = [f"{name}.npz" for name in sorted(names)]
    files = []
    for name in names:
        run(tmp_path, [subject(name, pairs=False)], out=name, outliers="none")
        files.append(f"{name}/artifacts/moments-1.npz")
    merged = {"name": "merged", "moments": files}
    found = run(tmp_path, [together, merged, {**merged, "name": "b", "moments": files[::-1]}])
    for one in found.subjects[1:]:
        assert one.mir_exact.value == pytest.approx(whole.subjects[0].mir_exact.value, rel=1e-12)
        assert one.mir_exact.low is not None
        for ours, theirs in zip(one.layers, whole.subjects[0].layers, strict=True):
            for name in ("fid", "norm_ratio", "centroid_l2", "mean_pairwise_sq", "r", "s"):
                assert getattr(ours, name) == pytest.approx(getattr(theirs, name), rel=1e-11)
    plain = run(tmp_path, [together], out="plain", outliers="none")
    assert plain.subjects[0].mir_exact.value == pytest.approx(
        whole.subjects[0].mir_exact.value, rel=1e-12
    )


def test_official_modes_have_columns_of_their_own(tmp_path: Path) -> None:
    states(tmp_path, "one")
    exact = run(tmp_path, [subject("one")]).subjects[0]
    assert exact.mir_official_fast is None
    assert exact.layers[0].fid_official_fast is None
    asked = ["official_fast", "official_accurate"]
    found = run(tmp_path, [subject("one")], sqrt=asked)
    one = found.subjects[0]
    assert one.mir_exact == exact.mir_exact
    assert one.mir_official_accurate == pytest.approx(one.mir_exact.value, abs=1e-4)
    assert one.mir_official_fast != pytest.approx(one.mir_exact.value, abs=0.01)
    assert any("takes no root" in text for text in found.warnings)


def test_without_pairs_there_is_no_interval_and_the_result_says_so(tmp_path: Path) -> None:
    states(tmp_path, "one")
    one = run(tmp_path, [subject("one", pairs=False)]).subjects[0]
    assert one.mir_exact.low is None
    assert one.mir_exact.interval.startswith("None: it needs the pairs")


def test_only_the_input(tmp_path: Path) -> None:
    states(tmp_path, "one", layers=1)
    found = run(tmp_path, [subject("one", layers=1)])
    assert found.subjects[0].mir_exact.value is None
    assert any("there is no MIR" in text for text in found.warnings)


def records(gaps: list[float], rates: list[float]) -> list[dict[str, Any]]:
    return [
        {"name": f"m{k}", "gap": gap, "unsafe_rate": rate}
        for k, (gap, rate) in enumerate(zip(gaps, rates, strict=True))
    ]


def test_risk_is_fitted_to_own_records_only(tmp_path: Path) -> None:
    states(tmp_path, "one")
    asked = records([0.2, 0.5, 1.0, 2.0, 3.0, 9.0], [0.0, 0.1, 0.15, 0.4, 0.6, 0.8])
    found = run(tmp_path, [subject("one")], risk={"records": asked}).risk
    assert found is not None
    assert found.exact_p == pytest.approx(2 / 720)
    (one,) = found.predictions
    assert one.gap is not None
    assert one.unsafe_rate is not None
    assert 0 < one.unsafe_rate < 0.8
    assert not one.outside
    few = run(tmp_path, [subject("one")], risk={"records": asked[:4]})
    assert few.risk is not None
    assert few.risk.curve == []
    assert few.risk.predictions[0].unsafe_rate is None
    assert any("ranks only" in text for text in few.warnings)
    mixed = records([0.2, 0.5, 1.0, 2.0, 3.0], [0.4, 0.1, 0.6, 0.2, 0.3])
    none = run(tmp_path, [subject("one")], risk={"records": mixed})
    assert none.risk is not None
    assert none.risk.predictions[0].unsafe_rate is None
    assert any("nothing is predicted" in text for text in none.warnings)


def test_bad_states_are_named(tmp_path: Path) -> None:
    states(tmp_path, "one")
    with np.load(tmp_path / "one.npz") as given:
        good = dict(given)

    def fault(key: str, value: Any) -> str:
        np.savez(tmp_path / "bad.npz", **{**good, key: value})
        with pytest.raises(JobError) as caught:
            run(tmp_path, [subject("bad")])
        assert caught.value.code in ("input_invalid", "numerical_failure")
        return caught.value.message

    broken = good["v1"].copy()
    broken[5, 2] = np.inf
    message = fault("v1", broken)
    assert "representations.image" in message
    assert "v1" in message
    assert "row 5" in message
    assert "has the shape (320, 6, 1)" in fault("v0", good["v0"][:, :, None])
    assert "(tokens, width)" in fault("v0", good["v0"][:, 0])
    assert "two or more" in fault("t0", good["t0"][:1])
    assert "scale is undefined" in fault("t0", good["t0"] * 0)
    assert "numbers in 'image_pair'" in fault("image_pair", good["image_pair"][:-1])
    assert "whole numbers" in fault("image_pair", good["image_pair"] + 0.5)
    np.savez(tmp_path / "bad.npz", **{**good, "t1": good["t1"][:, :4]})
    with pytest.raises(JobError, match="6 values, those of text tokens 4"):
        run(tmp_path, [subject("bad")])


def test_files_that_are_no_moments_are_refused(tmp_path: Path) -> None:
    states(tmp_path, "one")
    (tmp_path / "text.npz").write_text("hello")
    for name, problem in (("one", "no moments in it"), ("text", "no npz file")):
        with pytest.raises(JobError, match=problem):
            run(tmp_path, [{"name": "m", "moments": [f"{name}.npz"]}])


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"subjects": [{"name": "m"}]}, "exactly one of model"),
        ({"subjects": [{"name": "m", "model": "llava"}]}, "needs pairs"),
        ({"layers": []}, "layers is empty"),
        ({"risk": {"records": records([1.0, 1.0], [0.1, 0.2])}}, "the same gap"),
        ({"risk": {"records": records([1.0, 2.0], [0.1, 1.2])}}, "less than or equal to 1"),
        ({"subjects": [{"name": "a", "moments": ["x"]}] * 2}, "occurs twice"),
    ],
)
def test_requests_that_say_nothing_are_refused(change: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        Spec.model_validate({"subjects": [{"name": "m", "moments": ["x"]}], **change})


def test_layers_of_one_modality_are_refused() -> None:
    one = subject("one")
    del one["representations"]["text"]["arrays"]["2"]
    with pytest.raises(ValidationError, match="layer 2 is there for one modality only"):
        Spec.model_validate({"subjects": [one]})
