"""What every scorer promises: order does not matter, confidences are in [0, 1], no silent zero."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from methods.score_hallucination import explain
from methods.score_hallucination.scorers import graph, kernel_language_entropy, sar, snne, two_stage
from methods.score_hallucination.scoring.pipeline import (
    SCORERS,
    Answers,
    JudgedAnswer,
    Options,
    score,
)
from methods.score_hallucination.similarity import nli
from tests.methods.score_hallucination import upstream

KINDS = ("rouge_l", "exact", "jaccard", "token_f1", "char_ngram")
WORDS = ("Paris", "paris", "London", "the", "42", "-42", "北京", "не", "?", "")

texts = st.lists(st.sampled_from(WORDS), max_size=4).map(" ".join)
logprob = st.floats(-20, 0)
tokens = st.lists(logprob, min_size=1, max_size=4)


@st.composite
def items(draw: st.DrawFn) -> Answers:
    n = draw(st.integers(1, 6))
    top = st.lists(st.lists(logprob, min_size=2, max_size=4), min_size=1, max_size=3)
    return Answers(
        texts=draw(st.lists(texts, min_size=n, max_size=n)),
        logprobs=draw(st.lists(st.none() | tokens, min_size=n, max_size=n)),
        judged=draw(
            st.none()
            | st.builds(
                JudgedAnswer, text=texts, logprobs=st.none() | tokens, top_logprobs=st.none() | top
            )
        ),
    )


@given(st.lists(items(), min_size=1, max_size=4), st.sampled_from(KINDS), st.randoms())
@settings(max_examples=60)
def test_scores_do_not_depend_on_order_and_confidences_are_shares(
    batch: list[Answers], kind: str, random: object
) -> None:
    options = Options(scorers=tuple(SCORERS), kind=kind)
    found = score(batch, options)
    shuffled = []
    for item in batch:
        order = list(range(len(item.texts)))
        random.shuffle(order)  # type: ignore[attr-defined]
        shuffled.append(
            Answers(
                [item.texts[i] for i in order],
                [item.logprobs[i] for i in order],
                judged=item.judged,
            )
        )
    again = score(shuffled, options)
    alone = [score([item], options)[0] for item in batch]
    for one, other, single in zip(found, again, alone, strict=True):
        assert set(one.values) | set(one.reasons) == set(SCORERS)
        assert not set(one.values) & set(one.reasons)
        assert one.n_unique == other.n_unique == single.n_unique
        assert set(one.values) == set(other.values) == set(single.values)
        for name, value in one.values.items():
            assert value == pytest.approx(other.values[name], rel=1e-7, abs=1e-7), name
            assert value == pytest.approx(single.values[name], rel=1e-9, abs=1e-9), name
        assert all(0 <= confidence <= 1 for confidence in one.confidences.values())


similarities = st.integers(2, 7).flatmap(
    lambda n: arrays.arrays(np.float64, (3, n, n), elements=st.floats(0, 1))
)


def _unit(s: np.ndarray) -> np.ndarray:
    s = (s + s.transpose(0, 2, 1)) / 2
    s[:, np.arange(s.shape[1]), np.arange(s.shape[1])] = 1.0
    return s


@given(similarities)
@settings(max_examples=60)
def test_ranges_of_the_scores_of_a_similarity(raw: np.ndarray) -> None:
    s, n, slack = _unit(raw), raw.shape[-1], 1e-9
    ranges = {
        graph.eigv_laplacian: (1, n),
        graph.degree_matrix: (0, 1),
        upstream.degree_unscaled: (0, n - 1),
        graph.eccentricity: (0, np.sqrt(n)),
        nli.luq: (0, 1),
        nli.luq_pair: (0, 1),
        two_stage.mpd_self: (0, 1),
    }
    for function, (low, high) in ranges.items():
        value = function(s)
        assert (value >= low - slack).all(), function.__name__
        assert (value <= high + slack).all(), function.__name__
    weights = kernel_language_entropy.weights_from_similarity(s)
    for kernel in ("heat", "matern"):
        for normalized in (False, True):
            entropy = kernel_language_entropy.kernel_language_entropy(
                weights, kernel, normalized=normalized
            )
            assert (entropy >= -slack).all()
            assert (entropy <= np.log(n) + slack).all()


@given(similarities)
@settings(max_examples=40)
def test_isolated_answers_and_empty_graphs_have_values(raw: np.ndarray) -> None:
    raw = np.where(raw < 0.5, 0.0, raw)
    value = graph.eigv_laplacian(raw)
    assert np.isfinite(value).all()
    assert np.isfinite(graph.eccentricity(raw)).all()
    silent = np.zeros_like(raw)
    np.testing.assert_allclose(graph.eigv_laplacian(silent), raw.shape[-1])


def test_a_matrix_that_is_no_graph_has_no_score_and_does_not_disturb_the_others() -> None:
    good = np.eye(3) * 0.5 + 0.5
    batch = np.stack([good, np.full((3, 3), np.nan), -good, good])
    for function in (graph.eigv_laplacian, graph.eccentricity):
        value = function(batch)
        assert np.isnan(value[1:3]).all()
        np.testing.assert_allclose(value[[0, 3]], function(good[None])[0])


@pytest.mark.parametrize("n", [2, 5, 10])
def test_identical_answers_score_lowest_and_unrelated_ones_highest(n: int) -> None:
    same, none = np.ones((1, n, n)), np.eye(n)[None]
    assert graph.eigv_laplacian(same)[0] == pytest.approx(1)
    assert graph.eigv_laplacian(none)[0] == pytest.approx(n)
    assert graph.eccentricity(same)[0] == pytest.approx(0, abs=1e-7)
    assert graph.eccentricity(none)[0] == pytest.approx(np.sqrt(n - 1))
    for function in (nli.luq, nli.luq_pair):
        assert function(same)[0] == 0
        assert function(none)[0] == 1
    entropies = kernel_language_entropy.kernel_language_entropy(
        kernel_language_entropy.weights_from_similarity(np.concatenate([same, none]))
    )
    assert entropies[0] < entropies[1] == pytest.approx(np.log(n))


def test_sar_survives_log_probabilities_that_underflow() -> None:
    value = sar.sentence_sar(np.array([[-2000.0, -2001.0]]), np.full((1, 2, 2), 0.5))
    assert np.isfinite(value).all()


@given(similarities, st.sampled_from([0.01, 0.1, 1.0, 10.0]), st.booleans())
@settings(max_examples=60)
def test_leave_one_out_is_the_score_of_the_others(
    raw: np.ndarray, tau: float, include_self: bool
) -> None:
    s, n = _unit(raw), raw.shape[-1]
    change = explain.snne_leave_one_out(s, tau, include_self)
    if n < (2 if include_self else 3):
        assert np.isnan(change).all()
        return
    whole = snne.snne(s, tau, include_self)
    for k in range(n):
        others = np.delete(np.delete(s, k, axis=1), k, axis=2)
        expected = snne.snne(others, tau, include_self) - whole
        np.testing.assert_allclose(change[:, k], expected, rtol=1e-9, atol=1e-9)


@given(similarities, st.booleans())
@settings(max_examples=40)
def test_contributions_sum_to_the_score(raw: np.ndarray, include_self: bool) -> None:
    s, n = _unit(raw), raw.shape[-1]
    parts = explain.snne_contributions(s, 0.5, include_self)
    np.testing.assert_allclose(parts.sum(axis=-1), snne.snne(s, 0.5, include_self))
    loglik = np.log(np.arange(1, n + 1) / n)[None].repeat(3, axis=0)
    weight = np.exp(loglik) / np.exp(loglik).sum(axis=-1, keepdims=True)
    parts = explain.snne_contributions(s, 0.5, include_self, weight)
    np.testing.assert_allclose(parts.sum(axis=-1), snne.wsnne(s, loglik, 0.5, include_self))


@given(similarities)
@settings(max_examples=40)
def test_neighbours_and_medoid(raw: np.ndarray) -> None:
    s = _unit(raw)
    nearest, middle = explain.nearest_neighbour(s), explain.medoid(s)
    for b in range(len(s)):
        away = s[b] - 2 * np.eye(s.shape[1])
        assert nearest[b].tolist() == away.argmax(axis=1).tolist()
        total = s[b].sum(axis=1)
        assert total[middle[b]] == pytest.approx(total.max())
    assert explain.nearest_neighbour(np.ones((1, 1, 1))).tolist() == [[-1]]


def test_an_outlier_disturbs_the_others_and_a_supporter_helps_them() -> None:
    s = np.full((1, 4, 4), 0.9)
    s[0, 3] = s[0, :, 3] = 0.0
    s = _unit(s)
    change = explain.snne_leave_one_out(s, normalized=True)[0]
    assert change[3] > 0 > change[:3].max()
