"""plan-test-time-compute and score-task-hardness as jobs: whole runs, refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from sklearn.datasets import load_digits

from methods.errors import JobCancelled, JobError
from methods.local import LocalContext
from methods.plan_test_time_compute import planning
from methods.plan_test_time_compute.job import run
from methods.plan_test_time_compute.result import Result
from methods.plan_test_time_compute.spec import JOB, Spec
from methods.results import SCHEMA
from methods.score_task_hardness.job import run as run_hardness
from methods.score_task_hardness.spec import JOB as HARDNESS_JOB
from methods.score_task_hardness.spec import Result as HardnessResult
from methods.score_task_hardness.spec import Spec as HardnessSpec

GOLDEN = Path(__file__).parents[2] / "golden" / "theory"


def solve(folder: Path, request: dict[str, Any]) -> Result:
    spec = Spec.model_validate(request)
    return run(spec, LocalContext(folder, spec))


def golden_request(**extra: Any) -> dict[str, Any]:
    g = json.loads((GOLDEN / "unit.json").read_text())["tts_job"]
    tasks = [{"name": f"task{i}", "covariance": c} for i, c in enumerate(g["task_covs"])]
    target = {"covariance": g["target_cov"]}
    return {"target": target, "tasks": tasks, "context_length_train": g["n"], **extra}


def digit_features(folder: Path) -> dict[str, Any]:
    """Target: pixels of odd digits; tasks: odd, even, and small digits, from other images."""
    pixels, digit = load_digits(return_X_y=True)
    first = np.arange(len(digit)) % 2 == 0
    np.save(folder / "odd-test.npy", pixels[first & (digit % 2 == 1)].astype(np.float32))
    np.savez(
        folder / "tasks.npz",
        odd=pixels[~first & (digit % 2 == 1)],
        even=pixels[~first & (digit % 2 == 0)],
        three=pixels[~first & (digit < 3)],
    )
    names = ("odd", "even", "three")
    tasks = [{"name": name, "features": "tasks.npz", "array": name} for name in names]
    return {"target": {"features": "odd-test.npy"}, "tasks": tasks}


def test_golden_job_through_the_runner(tmp_path: Path) -> None:
    g = json.loads((GOLDEN / "unit.json").read_text())["tts_job"]
    result = solve(tmp_path, golden_request())
    assert list(result.mixture.weights.values()) == pytest.approx(g["qp_pi"], abs=1e-5)
    assert result.mixture.objective == pytest.approx(g["qp_objective"], abs=1e-9)
    assert result.target.hardness == pytest.approx(g["target_hardness"], abs=1e-9)
    assert [t.hardness for t in result.tasks] == pytest.approx(g["task_hardness"], abs=1e-9)
    assert result.mixture.coverage is not None
    assert result.mixture.coverage.mu == pytest.approx(g["mu_per_example"], abs=1e-6)
    assert result.curves is not None
    assert result.curves.error_median[:9] == pytest.approx(g["curve_per_example"], abs=1e-6)
    assert result.curves.population == pytest.approx(result.curves.error_median, rel=1e-9)
    assert result.recommendation is not None
    assert result.recommendation.verdict == "helps"
    assert "not tokens" in result.recommendation.words
    assert any("context_length_test is null" in caveat for caveat in result.caveats)
    assert Result.model_validate_json(result.model_dump_json()) == result


def test_a_short_test_prompt_changes_the_verdict(tmp_path: Path) -> None:
    """The same data: thinking helps in the limit and hurts after two steps with 10 examples."""
    short = solve(tmp_path, golden_request(context_length_test=10, seed=3))
    assert short.recommendation is not None
    assert short.recommendation.verdict == "hurts_after"
    assert short.recommendation.best_steps == 2
    assert 2.0 < short.recommendation.stability_edge < 2.4
    assert short.curves is not None
    low, high = np.array(short.curves.error_q10), np.array(short.curves.error_q90)
    assert (low <= np.array(short.curves.error_median)).all()
    assert (high[1:] > low[1:]).all()
    longer = solve(tmp_path, golden_request(context_length_test=30))
    assert longer.recommendation is not None
    assert longer.recommendation.verdict == "helps"
    assert 0.1 < longer.recommendation.diverging_prompts < 0.5
    assert "diverges for" in longer.recommendation.words
    tiny = solve(tmp_path, golden_request(context_length_test=3))
    assert tiny.recommendation is not None
    assert tiny.recommendation.error_floor == 2.0
    again = solve(tmp_path, golden_request(context_length_test=10, seed=3))
    assert again == short


def test_both_data_models_and_the_exact_optimiser(tmp_path: Path) -> None:
    g = json.loads((GOLDEN / "unit.json").read_text())["tts_job"]
    request = golden_request(mixing="per_prompt", target_error=0.05, max_steps=200)
    qp = solve(tmp_path, request)
    assert qp.curves is not None
    assert qp.curves.error_median[:9] == pytest.approx(g["curve_per_prompt"], abs=1e-6)
    assert qp.curves.steps[-1] == 200
    assert qp.recommendation is not None
    k = qp.recommendation.steps_for_target
    errors = dict(zip(qp.curves.steps, qp.curves.error_median, strict=True))
    assert k is not None
    assert errors[k] <= 0.05 * 5 < errors[k - 1]
    pairs = {p.context_length_train: p.steps for p in qp.recommendation.train_context_tradeoff}
    assert pairs[40] == k
    exact = solve(tmp_path, {**request, "optimizer": "exact", "objective_steps": 8})
    assert exact.curves is not None
    assert exact.curves.population[8] < qp.curves.population[8]
    assert exact.mixture.duality_gap is None
    assert any("extension" in caveat for caveat in exact.caveats)


def test_constraints_and_current_mixture(tmp_path: Path) -> None:
    request = golden_request(
        constraints={"max_weight": 0.6, "min_weight": {"task3": 0.1}, "budget": 1.5},
        current_mixture={"task0": 0.25, "task1": 0.75},
    )
    for task, cost in zip(request["tasks"], (2.0, 1.0, 1.0, 1.0), strict=True):
        task["cost"] = cost
    result = solve(tmp_path, request)
    weights = result.mixture.weights
    assert sum(weights.values()) == pytest.approx(1)
    assert max(weights.values()) <= 0.6 + 1e-9
    assert weights["task3"] >= 0.1 - 1e-9
    assert result.mixture.cost == pytest.approx(1.5, abs=1e-6)
    free = solve(tmp_path, golden_request())
    assert free.mixture.objective < result.mixture.objective < result.mixture.objective_uniform
    assert result.mixture.duality_gap == pytest.approx(0, abs=1e-9)
    assert result.curves is not None
    assert result.curves.baseline_current is not None
    assert len({figure.title for figure in result.figures}) == 3
    for figure in result.figures:
        assert figure.vega_lite["$schema"] == SCHEMA
        assert "layer" in figure.vega_lite or "mark" in figure.vega_lite
        assert figure.caption


def test_without_a_context_only_the_mixture(tmp_path: Path) -> None:
    result = solve(tmp_path, golden_request(context_length_train=None))
    assert result.curves is result.recommendation is result.mixture.coverage is None
    assert [figure.title for figure in result.figures] == ["Mixture of training tasks"]
    assert result.theory.bound_thm_3_3 is None


def test_observed_curve_is_fitted(tmp_path: Path) -> None:
    plain = solve(tmp_path, golden_request(context_length_test=200))
    assert plain.curves is not None
    relative = np.array(plain.curves.error_median) / plain.curves.error_median[0]
    points = [{"budget": 50.0 * k, "accuracy": 1 - 0.8 * float(relative[k])} for k in (1, 2, 4, 9)]
    result = solve(
        tmp_path,
        golden_request(
            context_length_test=200,
            observed_curve={"accuracy_without_thinking": 0.2, "points": points},
        ),
    )
    assert result.calibration is not None
    assert result.calibration.budget_per_step == pytest.approx(50, rel=0.01)
    assert result.calibration.r_squared > 0.999
    assert result.calibration.best_budget == pytest.approx(50 * 32, rel=0.01)
    assert result.calibration.beyond_measured
    assert any("beyond all that was measured" in one for one in result.caveats)


def test_a_curve_that_the_surrogate_does_not_describe_has_no_best_budget(tmp_path: Path) -> None:
    rising = [(1, 0.5), (2, 0.1), (4, 0.6), (8, 0.05), (16, 0.55)]
    curve = {
        "accuracy_without_thinking": 0.2,
        "points": [{"budget": float(b), "accuracy": a} for b, a in rising],
    }
    result = solve(tmp_path, golden_request(context_length_test=200, observed_curve=curve))
    assert result.calibration is not None
    assert result.calibration.r_squared < 0.5
    assert result.calibration.best_budget is None
    assert result.calibration.measured_best == 4
    assert any("the best of those measured is 4" in one for one in result.caveats)


def test_one_step_that_takes_the_error_away_helps() -> None:
    steps = np.array([0, 1])
    assert planning.verdict(steps, np.array([6.0, 1.74]), 1.0) == "helps"
    assert planning.verdict(steps, np.array([6.0, 5.99]), 1.0) == "saturates"
    every = np.arange(33)
    assert planning.verdict(every, 0.5**every, 1.0) == "helps"
    assert planning.verdict(every, np.maximum(0.5**every, 0.5**8), 1.0) == "saturates"


@pytest.mark.parametrize("rows", [3, 5, 10])
@pytest.mark.parametrize("seed", range(4))
def test_a_few_rows_a_task_are_few_samples_and_no_crash(
    tmp_path: Path, rows: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    np.savez(tmp_path / "few.npz", x=rng.normal(size=(rows, 2)))
    request = {
        "target": {"covariance": [[1.0, 0.1], [0.1, 0.8]]},
        "tasks": [{"name": "few", "features": "few.npz", "array": "x"}],
        "context_length_train": 64,
        "context_length_test": 64,
        "seed": seed,
    }
    result = solve(tmp_path, request)
    assert any("few" in one for one in result.warnings)


def test_real_features(tmp_path: Path) -> None:
    """Pixels of digits: the related task gets the mass; constant pixels are left out."""
    result = solve(
        tmp_path,
        {
            **digit_features(tmp_path),
            "context_length_train": 200,
            "context_length_test": 400,
            "n_bootstrap": 50,
            "n_mc": 40,
        },
    )
    assert result.target.columns == 64
    assert 20 < result.target.dim < 61
    assert result.target.kept_variance > 0.99
    assert any(warning.startswith("reduced") for warning in result.target.warnings)
    assert result.target.hardness_ci is not None
    assert result.target.hardness is not None
    low, high = result.target.hardness_ci
    assert low <= result.target.hardness <= high
    tasks = {task.name: task for task in result.tasks}
    assert tasks["odd"].weight > 0.5
    assert tasks["odd"].alignment > max(tasks["even"].alignment, tasks["three"].alignment)
    assert tasks["odd"].relevance > 0.97
    assert result.curves is not None
    assert result.curves.error_median[8] < result.curves.baseline_uniform[8] * 1.2
    assert any(w.startswith("few_samples") for w in tasks["three"].warnings)
    assert any("few samples" in caveat for caveat in result.caveats)


def test_uncovered_directions_are_named(tmp_path: Path) -> None:
    """A skill that training hardly shows: its feature is the one that diverges."""
    weak = np.diag([1.0, 1.0, 0.02, 1.0])
    result = solve(
        tmp_path,
        {
            "target": {"covariance": np.eye(4).tolist()},
            "tasks": [{"name": "a", "covariance": weak.tolist()}],
            "context_length_train": 100,
        },
    )
    coverage = result.mixture.coverage
    assert coverage is not None
    assert coverage.uncovered == 1
    assert coverage.directions[0].top_features[0] == 2
    assert coverage.directions[0].mu > 2
    assert result.recommendation is not None
    assert result.recommendation.verdict.startswith("hurts")


def test_scale_matters_only_without_normalisation(tmp_path: Path) -> None:
    def verdict(**extra: Any) -> tuple[float, str]:
        request = golden_request(**extra)
        request["tasks"] = request["tasks"][:1]
        matrix = np.array(request["tasks"][0]["covariance"])
        request["tasks"][0]["covariance"] = (matrix / 4).tolist()
        found = solve(tmp_path, request).recommendation
        assert found is not None
        return found.stability_edge, found.verdict

    assert verdict()[1] == "helps"
    edge, words = verdict(normalize="none")
    assert edge > 2
    assert words.startswith("hurts")


BAD = [
    ({"target": {"covariance": [[1.0, 0.5], [0.0, 1.0]]}}, r"target.covariance is not symmetric"),
    ({"target": {"covariance": [[1.0, 2.0], [2.0, 1.0]]}}, "not positive semi-definite"),
    ({"target": {"covariance": [[0.0, 0.0], [0.0, 0.0]]}}, "not positive semi-definite: trace 0"),
    ({"target": {"covariance": np.eye(3).tolist()}}, r"tasks.a.covariance is 2 wide, the target 3"),
    ({"tasks": [{"name": "a", "features": "wide.npy"}]}, r"5 columns, the target has 2"),
    ({"tasks": [{"name": "a", "features": "one.npy"}]}, "one row; two are needed"),
    ({"tasks": [{"name": "a", "features": "nan.npy"}]}, "row 3, column 0 is nan"),
    ({"target": {"features": "flat.npy"}}, "all rows are equal"),
    ({"constraints": {"max_weight": 0.3}}, "no weights that sum to 1"),
    ({"constraints": {"budget": 0.5}}, "above the budget"),
    ({"constraints": {"max_weight": 0.5, "min_weight": {"a": 0.7}}}, "min_weight is above"),
]


@pytest.mark.parametrize(("change", "words"), BAD, ids=[words[:24] for _, words in BAD])
def test_bad_inputs_are_refused(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    rng = np.random.default_rng(0)
    np.save(tmp_path / "wide.npy", rng.normal(size=(20, 5)))
    np.save(tmp_path / "one.npy", np.ones((1, 2)))
    np.save(tmp_path / "flat.npy", np.ones((30, 2)))
    broken = rng.normal(size=(20, 2))
    broken[3, 0] = np.nan
    np.save(tmp_path / "nan.npy", broken)
    request = {
        "target": {"covariance": [[1.0, 0.0], [0.0, 1.0]]},
        "tasks": [{"name": name, "covariance": [[1.0, 0.0], [0.0, 2.0]]} for name in ("a", "b")],
        "context_length_train": 20,
    }
    with pytest.raises(JobError, match=words) as caught:
        solve(tmp_path, {**request, **change})
    assert caught.value.code == "input_invalid"


def test_irrelevant_and_deficient_tasks_do_not_fail_the_job(tmp_path: Path) -> None:
    inside = np.diag([2.0, 1.0, 0.0])
    request = {
        "target": {"covariance": inside.tolist()},
        "tasks": [
            {"name": "outside", "covariance": np.diag([0.0, 0.0, 5.0]).tolist()},
            {"name": "half", "covariance": np.diag([1.0, 0.0, 1.0]).tolist()},
            {"name": "good", "covariance": np.diag([1.0, 1.0, 0.0]).tolist()},
        ],
        "context_length_train": 50,
    }
    result = solve(tmp_path, request)
    tasks = {task.name: task for task in result.tasks}
    assert result.target.dim == 2
    assert tasks["outside"].relevance == 0
    assert tasks["outside"].weight == pytest.approx(0, abs=1e-6)
    assert tasks["half"].hardness is None
    assert tasks["half"].relevance == pytest.approx(0.5)
    assert tasks["good"].hardness == pytest.approx(2)
    only = {**request, "tasks": request["tasks"][:1]}
    with pytest.raises(JobError, match="no task has variance"):
        solve(tmp_path, only)


def test_specs_are_checked() -> None:
    for extra, words in (
        ({"target": {}}, "either features or covariance"),
        ({"target": {"covariance": [[1.0, 0.0]]}}, "must be square"),
        ({"target": {"covariance": [[float("nan")]]}}, "finite"),
        ({"current_mixture": {"task0": 0.5}}, "must sum to 1"),
        ({"current_mixture": {"nobody": 1.0}}, "unknown tasks: nobody"),
        ({"optimizer": "exact", "context_length_train": None}, "exact needs"),
        ({"context_length_train": 0}, "greater than or equal"),
        ({"shrinkage": 1.5}, "less than or equal"),
        ({"tasks": golden_request()["tasks"][:1] * 2}, "unique"),
    ):
        with pytest.raises(ValidationError, match=words):
            Spec.model_validate({**golden_request(), **extra})


def test_examples_of_the_documentation_run(tmp_path: Path) -> None:
    result = solve(tmp_path, JOB.example)
    assert result.recommendation is not None
    spec = HardnessSpec.model_validate(HARDNESS_JOB.example)
    scored = run_hardness(spec, LocalContext(tmp_path, spec))
    assert [one.hardness for one in scored.datasets] == pytest.approx([2.0, 31.0])
    assert scored.hardest_first == ["long-tail", "balanced"]


def test_cancelling_stops_the_job(tmp_path: Path) -> None:
    class Cancelled(LocalContext):
        calls = 0

        def check(self) -> None:
            self.calls += 1
            if self.calls > 5:
                raise JobCancelled

    spec = Spec.model_validate(golden_request(context_length_test=20, n_mc=2000))
    ctx = Cancelled(tmp_path, spec)
    with pytest.raises(JobCancelled):
        run(spec, ctx)
    assert ctx.calls == 6


def score(folder: Path, **request: Any) -> HardnessResult:
    spec = HardnessSpec.model_validate(request)
    return run_hardness(spec, LocalContext(folder, spec))


def test_hardness_of_samples(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    root = np.sqrt(np.arange(1, 11.0) ** -1.0)
    truth = float(np.sum(root**2) / root[-1] ** 2)
    np.save(tmp_path / "many.npy", rng.standard_normal((4000, 10)) * root + 3.0)
    np.save(tmp_path / "few.npy", rng.standard_normal((60, 10)))
    names = ("many", "few")
    result = score(tmp_path, datasets=[{"name": n, "features": f"{n}.npy"} for n in names])
    many, few = result.datasets
    assert many.hardness == pytest.approx(truth, rel=0.1)
    assert many.hardness_ci is not None
    assert many.hardness_ci[0] < truth < many.hardness_ci[1]
    assert (many.reliable, few.reliable) == (True, False)
    assert any(warning.startswith("few_samples") for warning in few.warnings)
    assert result.hardest_first[0] == "many"


def test_hardness_of_digits_needs_a_reduction(tmp_path: Path) -> None:
    np.save(tmp_path / "pixels.npy", load_digits(return_X_y=True)[0])
    given = [{"name": "pixels", "features": "pixels.npy"}]
    raw = score(tmp_path, datasets=given).datasets[0]
    assert raw.hardness is None
    assert any(warning.startswith("rank_deficient") for warning in raw.warnings)
    reduced = score(tmp_path, datasets=given, explained_variance=0.9).datasets[0]
    assert reduced.hardness is not None
    assert reduced.hardness_per_dim == pytest.approx(reduced.hardness / reduced.dim)
    assert reduced.reliable
    assert 0.9 <= reduced.kept_variance < 0.93
