"""Graders against the SQuAD metric, and cluster entropies against the SNNE code."""

from __future__ import annotations

import numpy as np
import pytest

from methods.score_hallucination.answers import graders
from methods.score_hallucination.scorers import whitebox
from tests.methods.score_hallucination.golden import assert_same, golden, number

SQUAD = golden("squad_f1_correctness")["cases"]
ENTROPY = golden("snne_clustering_entropy")["equivalence_cases"]


@pytest.mark.parametrize("case", SQUAD, ids=lambda c: c["prediction"] or "empty")
def test_squad(case: dict) -> None:
    f1 = graders.token_f1(case["prediction"], case["references"])
    assert_same(100 * f1, case["f1"])
    assert_same(100 * graders.exact(case["prediction"], case["references"]), case["exact"])
    assert float(f1 >= 0.5) == case["correct_at_50"]


@pytest.mark.parametrize("case", ENTROPY, ids=lambda c: c["name"])
def test_weighted_cluster_entropy(case: dict) -> None:
    loglik, ids = number(case["length_norm_loglik"])[None], np.array(case["greedy_ids"])[None]
    value = whitebox.weighted_cluster_entropy(loglik, ids)[0]
    assert_same(value, case["weighted_cluster_assignment_entropy_greedy"])


@pytest.mark.parametrize(
    ("answer", "reference", "right"),
    [
        ("14", "14.0", 1.0),
        ("The total is 1,234.50 dollars", "1234.5", 1.0),
        ("5 + 7 = 12", "12", 1.0),
        ("-5", "5", 0.0),
        ("\u22125", "-5", 1.0),
        ("1e3", "1000", 1.0),
        ("3.14", "3.141", 0.0),
        ("fourteen", "14", 0.0),
        ("14", "fourteen", 0.0),
        ("12.", "12", 1.0),
    ],
)
def test_numeric(answer: str, reference: str, right: float) -> None:
    assert graders.numeric(answer, [reference]) == right


@pytest.mark.parametrize(
    ("answer", "references", "right"),
    [
        ("It is Paris, of course.", ["paris"], 1.0),
        ("In 2014", ["14"], 0.0),
        ("我住在北京市", ["北京"], 1.0),
        ("Barack Hussein Obama", ["Barack Obama"], 0.0),
        ("anything", [""], 0.0),
        ("anything", [], 0.0),
    ],
)
def test_contains(answer: str, references: list[str], right: float) -> None:
    assert graders.contains(answer, references) == right


def test_rouge_l_takes_the_best_reference() -> None:
    assert graders.rouge_l("the cat sat", ["a dog", "the cat stood"]) == pytest.approx(2 / 3)
    assert graders.rouge_l("the cat sat", []) == 0.0


@pytest.mark.parametrize("grader", graders.GRADERS.values(), ids=graders.GRADERS)
def test_an_answer_equal_to_a_reference_is_right(grader: graders.Grader) -> None:
    assert grader("It cost 7 euros", ["nothing", "It cost 7 euros"]) == 1.0
    assert grader("", ["It cost 7 euros"]) == 0.0
