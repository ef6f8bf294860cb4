"""Laws of the confidences: 1 where all agree, 0 where none does, whatever n and the order."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from methods.score_hallucination.scoring.pipeline import (
    SCORERS,
    Answers,
    ItemScores,
    JudgedAnswer,
    Options,
    score,
)

#: Scorers whose confidence says how far the samples agree, for equally likely ones.
OF_SAMPLES = (
    "snne",
    "wsnne",
    "semantic_entropy",
    "discrete_semantic_entropy",
    "num_semantic_sets",
    "eigv_laplacian",
    "degree_matrix",
    "eccentricity",
    "kernel_language_entropy",
    "kernel_language_entropy_matern",
    "kernel_language_entropy_full",
    "luq",
    "luq_pair",
    "mpd_self",
    "weighted_cluster_entropy",
)
OF_ANSWER = ("selfcheck_ngram", "exact_match", "semantic_density")
SIZES = [2, 3, 5, 10, 30]


def scored(matrix: np.ndarray, **more: object) -> ItemScores:
    n = len(matrix)
    texts = [f"w{k}" for k in range(n)]
    threshold = Options(
        OF_SAMPLES, kind="precomputed", threshold=0.999, algorithm="components", **more
    )  # type: ignore[arg-type]
    [found] = score([Answers(texts, [[-1.0]] * n, matrix.tolist())], threshold)
    return found


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("tau", [0.01, 1.0, 100.0])
def test_all_alike_is_one_and_all_different_is_zero(n: int, tau: float) -> None:
    alike, apart = scored(np.ones((n, n)), tau=tau), scored(np.eye(n), tau=tau)
    assert alike.confidences == pytest.approx(dict.fromkeys(OF_SAMPLES, 1.0), abs=1e-6)
    assert apart.confidences == pytest.approx(dict.fromkeys(OF_SAMPLES, 0.0), abs=1e-6)


@pytest.mark.parametrize("n", SIZES)
def test_an_answer_like_all_samples_or_like_none(n: int) -> None:
    options = Options(OF_ANSWER, kind="exact")
    long = " ".join(f"word{k}" for k in range(20))
    own = JudgedAnswer(long)
    alike = Answers([long] * n, [[-1.0]] * n, judged=own)
    apart = Answers([f"other{k} more{k}" for k in range(n)], [[-1.0]] * n, judged=own)
    found = score([alike, apart], options)
    assert found[0].confidences == pytest.approx(dict.fromkeys(OF_ANSWER, 1.0))
    assert found[1].confidences == pytest.approx(dict.fromkeys(OF_ANSWER, 0.0))


def test_negative_similarities_are_nothing_in_common() -> None:
    for small in (1e-3, -1e-3, -1.0):
        matrix = np.full((4, 4), small)
        np.fill_diagonal(matrix, 1.0)
        found = scored(matrix)
        assert set(found.confidences) == set(OF_SAMPLES)
        for name, confidence in found.confidences.items():
            assert 0 <= confidence <= 0.01, name


def test_rounded_diagonals_are_ones() -> None:
    matrix = np.full((3, 3), 0.4)
    np.fill_diagonal(matrix, 1.0)
    rounded = matrix.copy()
    np.fill_diagonal(rounded, [0.9999999, 1.0, 1.0000001])
    assert scored(rounded).values == pytest.approx(scored(matrix).values, abs=1e-12)


texts = st.lists(
    st.sampled_from(["paris", "Paris.", "lyon", "nice is nice", "paris is nice", "**lyon**"]),
    min_size=2,
    max_size=6,
)


@given(texts=texts, seed=st.integers(0, 2**16))
@settings(max_examples=60, deadline=None)
def test_the_order_of_the_samples_says_nothing(texts: list[str], seed: int) -> None:
    rng = np.random.default_rng(seed)
    logprobs = [rng.uniform(-3, 0, size=2).tolist() for _ in texts]
    judged = JudgedAnswer("Paris", [-0.5], [[-0.5, -2.0]])
    order = rng.permutation(len(texts))
    same = Answers(texts, logprobs, judged=judged)
    other = Answers([texts[k] for k in order], [logprobs[k] for k in order], judged=judged)
    names = tuple(name for name in SCORERS if name != "ensemble")
    left, right = score([same, other], Options(names, threshold=0.99, algorithm="components"))
    assert left.values == pytest.approx(right.values, rel=1e-9, abs=1e-9)
    assert left.confidences == pytest.approx(right.confidences, rel=1e-9, abs=1e-9)
    assert left.reasons.keys() == right.reasons.keys()


#: Weighting, thresholds on eigenvalues and clusters by a threshold may turn a small rise around.
MONOTONE = ("snne", "wsnne", "degree_matrix", "eigv_laplacian", "luq", "luq_pair", "mpd_self")


@given(seed=st.integers(0, 2**16), n=st.integers(2, 6), share=st.floats(0, 1))
@settings(max_examples=80, deadline=None)
def test_more_alike_is_no_less_confident(seed: int, n: int, share: float) -> None:
    matrix = np.random.default_rng(seed).random((n, n))
    matrix = (matrix + matrix.T) / 2
    np.fill_diagonal(matrix, 1.0)
    before, after = scored(matrix), scored(matrix + share * (1 - matrix))
    for name in MONOTONE:
        assert after.confidences[name] >= before.confidences[name] - 1e-9, name
