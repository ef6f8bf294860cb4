"""SAR and EigenScore against the SNNE code."""

from __future__ import annotations

import numpy as np
import pytest

from methods.score_hallucination.scorers import sar, whitebox
from tests.methods.score_hallucination.golden import assert_same, golden, number

FILE = golden("snne_sar_eigenscore")


@pytest.mark.parametrize("case", FILE["sar_cases"], ids=lambda c: f"{c['n']}-{c['temp']}")
def test_sar_in_the_orientation_of_the_original(case: dict) -> None:
    logprobs = whitebox.pad(case["token_log_likelihoods"])[None]
    similarity = 1 - whitebox.pad(case["token_importance"])[None]
    relevance = number(case["sentence_similarity"])[None]
    value = sar.sar(logprobs, similarity, relevance, case["temp"], compat="upstream")
    assert_same(value[0], case["sar"])


@pytest.mark.parametrize("case", FILE["eigenscore_cases"], ids=lambda c: f"{c['n']}-{c['dim']}")
def test_eigenscore(case: dict) -> None:
    value = whitebox.eigenscore(number(case["embeddings"])[None], case["alpha"])
    assert_same(value[0], case["eigenscore"])


def test_relevant_tokens_weigh_more_by_default() -> None:
    logprobs = np.array([[-0.1, -3.0]])
    similarity_without = np.array([[0.9, 0.1]])
    assert_same(sar.token_sar(logprobs, similarity_without), [(0.1 * 0.1 + 0.9 * 3.0)])
    assert_same(sar.token_sar(logprobs, similarity_without, "upstream"), [(0.9 * 0.1 + 0.1 * 3.0)])


def test_tokens_that_never_matter_weigh_the_same() -> None:
    assert_same(sar.token_sar(np.array([[-1.0, -3.0, np.nan]]), np.ones((1, 3))), [2.0])
