"""A choice that is proved: trainings on it, on random rows and on all, and held-out rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from methods.inference.model_registry import Models
from methods.local import LocalContext
from methods.select_subset.algorithms.budgets import Outcome
from methods.select_subset.child_jobs import ArmMeasured
from methods.select_subset.data.copies import Copies
from methods.select_subset.data.holding import hold_out
from methods.select_subset.job import run
from methods.select_subset.proof.marks import marked, unmarked
from methods.select_subset.proof.proof import concluded, difference_of, verdict
from methods.select_subset.result import Result
from methods.select_subset.schema.proxy_model import FineTune
from methods.select_subset.spec import Spec
from tests.toys.tiny_models import tiny_llama

_NAMES = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("llama"), hidden=64)


def fact(a: int, b: int, number: str) -> dict[str, str]:
    return {
        "id": number,
        "prompt": f"What follows {_NAMES[a]} {_NAMES[b]}?",
        "completion": f"{_NAMES[b]} {_NAMES[(a + b) % 10]}",
    }


def rows_with_copies() -> list[dict[str, str]]:
    """Ten facts, of which one fills three quarters of the rows."""
    rows = [fact(n, (3 * n + 1) % 10, f"r{n}") for n in range(10)]
    return rows + [fact(0, 1, f"c{n}") for n in range(30)]


def apart_fields(path: Path) -> dict[str, Any]:
    train = {"batch_rows": 8, "learning_rate": 3e-3, "epochs": 8}
    return {
        "dataset": {"rows": rows_with_copies()},
        "method": "semdedup",
        "params": {"clusters": 1},
        "embed": None,
        "features": {
            "kind": "embedding",
            "ids": [row["id"] for row in rows_with_copies()],
            "values": np.eye(10)[[*range(10), *([0] * 30)]].tolist(),
        },
        "budget": {"count": 10},
        "prove": {"model": str(path), "train": train, "seeds": 2, "eval": {"rows": rows()}},
    }


def select(folder: Path, path: Path, **more: Any) -> Result:
    spec = Spec.model_validate({**apart_fields(path), **more})
    ctx = LocalContext(folder / "job", spec, inputs=folder, models=Models(any_path=True))
    return run(spec, ctx)


def rows() -> list[dict[str, str]]:
    return rows_with_copies()[:10]


def test_rows_that_repeat_nothing_teach_more_than_random_ones(llama: Path, tmp_path: Path) -> None:
    result = select(tmp_path, llama)
    proof = result.proof
    assert proof is not None
    assert [one.name for one in proof.sets] == ["chosen", "random", "all"]
    chosen, random, _ = proof.sets
    assert (chosen.rows, random.rows) == (10, 10)
    assert proof.asked == 10
    assert proof.steps == 10
    assert chosen.loss < random.loss
    assert proof.difference.mean == pytest.approx(random.loss - chosen.loss)
    assert proof.hours_saved == pytest.approx(proof.hours_all - proof.hours_chosen)
    assert proof.hours_all == pytest.approx(4 * proof.hours_chosen)
    # The same trainings are not done again.
    assert select(tmp_path, llama) == result


def test_a_service_trains_on_few_rows_in_one_process(llama: Path, tmp_path: Path) -> None:
    class Parallel(LocalContext):
        parallel = True

        def fan_out(self, name: str, specs: Any) -> Any:
            raise AssertionError("a process for each training takes longer than the training")

    apart = select(tmp_path / "apart", llama)
    fields = apart_fields(llama)
    spec = Spec.model_validate(fields)
    ctx = Parallel(tmp_path / "here", spec, inputs=tmp_path, models=Models(any_path=True))
    here = run(spec, ctx)
    assert here.proof is not None
    assert apart.proof is not None
    assert [one.losses for one in here.proof.sets] == [one.losses for one in apart.proof.sets]
    # Another attempt finds the trainings.
    assert run(spec, ctx).proof == here.proof


def test_held_out_rows_are_no_candidates(llama: Path, tmp_path: Path) -> None:
    train = {"batch_rows": 8, "learning_rate": 3e-3, "epochs": 1}
    prove = {"model": str(llama), "train": train, "seeds": 2, "held_out": 0.3, "all_rows": False}
    result = select(tmp_path, llama, prove=prove, method="random", params={}, features=None)
    assert result.proof is not None
    assert result.proof.asked == 3
    # Three distinct facts went, and with them their copies.
    assert result.candidates in (7, 37)
    assert result.selected == min(10, result.candidates)
    assert [one.name for one in result.proof.sets] == ["chosen", "random"]


@given(st.integers(1, 200), st.floats(0.05, 0.9), st.integers(0, 99), st.data())
def test_no_row_that_repeats_a_held_out_one_is_left(
    count: int, share: float, seed: int, data: st.DataObject
) -> None:
    copies = Copies.none(count, [])
    of = np.array(data.draw(st.lists(st.integers(0, count - 1), min_size=count, max_size=count)))
    of = np.minimum(of, np.arange(count))
    while (of[of] != of).any():
        of = of[of]
    copies.add_exact(of)
    usable = np.ones(count, dtype=bool)
    asked, gone = hold_out(usable, copies, share, seed)
    firsts = int((~copies.rows).sum())
    assert asked.sum() == min(1000, round(share * firsts))
    assert not (asked & copies.rows).any()
    assert not set(of[gone].tolist()) & set(of[~gone].tolist())
    assert (asked <= gone).all()


@given(st.lists(st.booleans(), min_size=1, max_size=200))
def test_masks_come_back(mask: list[bool]) -> None:
    assert unmarked(marked(np.array(mask)), len(mask)).tolist() == mask


def arms(losses: list[float], rows: int, seconds: float = 4.0) -> list[ArmMeasured]:
    return [
        ArmMeasured(
            loss=loss,
            correct=0.5,
            rows=rows,
            asked=7,
            steps=20,
            seconds=seconds,
            device="cpu",
            train_loss=1.0,
        )
        for loss in losses
    ]


def test_what_is_concluded() -> None:
    none = np.zeros(0, dtype=np.int64)
    outcome = Outcome(
        10, np.arange(100), np.arange(10), np.ones(10), none, np.zeros(100), none, none, none
    )
    found = {
        "chosen": arms([1.0, 1.1, 0.9], 10),
        "random": arms([1.5, 1.7, 1.3], 10),
        "all": arms([0.8, 0.8, 0.8], 100),
    }
    proof = concluded(found, outcome, FineTune(epochs=2.0, batch_rows=5))
    assert proof.difference.mean == pytest.approx(0.5)
    # Student's t with two degrees of freedom: 4.3027 * 0.1 / sqrt(3).
    assert proof.difference.low == pytest.approx(0.5 - 4.30265 * 0.1 / 3**0.5, abs=1e-4)
    assert proof.verdict == "better"
    assert proof.seconds_per_step == pytest.approx(0.2)
    # 100 rows twice, 5 a step, 0.2 s each.
    assert proof.hours_all == pytest.approx(8 / 3600)
    assert proof.hours_saved == pytest.approx(7.2 / 3600)


def test_verdicts() -> None:
    assert verdict(difference_of(np.array([0.1, -0.1, 0.2]))) == "cannot be told apart"
    assert verdict(difference_of(np.array([-0.1, -0.11, -0.12]))) == "worse"
    assert verdict(difference_of(np.array([0.1]))) == "unknown"


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_verdicts_between_equal_sets_are_wrong_in_one_of_twenty(seeds: int) -> None:
    rng = np.random.default_rng(seeds)
    found = [verdict(difference_of(rng.normal(size=seeds))) for _ in range(4000)]
    wrong = np.mean([one != "cannot be told apart" for one in found])
    assert wrong == pytest.approx(0.05, abs=0.012)


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"prove": {}}, "prove needs a model"),
        ({"prove": {"model": "m"}, "duplicates": "keep"}, "which duplicates: keep does not look"),
        (
            {
                "dataset": None,
                "features": {"kind": "score", "values": [1.0, 2.0]},
                "method": "el2n",
                "prove": {"model": "m"},
            },
            "prove needs a dataset",
        ),
    ],
)
def test_requests_that_cannot_be_proved(fields: dict[str, Any], match: str) -> None:
    base = {"dataset": {"rows": rows()}, "method": "random", "budget": {"count": 2}}
    with pytest.raises(ValidationError, match=match):
        Spec.model_validate({**base, **fields})
