"""Similarities by shared tokens, and unigram surprise, against their definitions."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from methods.score_hallucination.scorers import ngram
from methods.score_hallucination.similarity import lexical, rouge_l
from methods.score_hallucination.similarity.identity import canonical
from methods.score_hallucination.similarity.tokenize import tokenize_unicode

word = st.sampled_from(
    ["a", "b", "a b", "北京", "42", "-42", "A", "!", "", "a a b", "e\u0301", "x=1"]
)
answers = st.lists(st.lists(word, max_size=3).map(" ".join), min_size=1, max_size=5)


def _jaccard(a: str, b: str) -> float:
    left, right = set(tokenize_unicode(a)), set(tokenize_unicode(b))
    return len(left & right) / len(left | right) if left | right else 0.0


def _f1(a: str, b: str) -> float:
    left, right = Counter(tokenize_unicode(a)), Counter(tokenize_unicode(b))
    total = left.total() + right.total()
    return 2 * (left & right).total() / total if total else 0.0


def _cosine(a: str, b: str) -> float:
    left, right = (
        Counter(f" {canonical(t)} "[i : i + 3] for i in range(len(canonical(t)))) for t in (a, b)
    )
    norm = np.sqrt(sum(c * c for c in left.values()) * sum(c * c for c in right.values()))
    return sum(left[g] * right[g] for g in left) / norm if norm else 0.0


@pytest.mark.parametrize(
    ("matrices", "expected"),
    [
        (lambda d, p: lexical.jaccard(d, p, tokenize_unicode), _jaccard),
        (lambda d, p: lexical.token_f1(d, p, tokenize_unicode), _f1),
        (lexical.char_ngram, _cosine),
    ],
    ids=["jaccard", "token_f1", "char_ngram"],
)
@given(items=st.lists(answers, min_size=1, max_size=4))
@settings(max_examples=60)
def test_similarities_by_definition(matrices: object, expected: object, items: list) -> None:
    assert callable(matrices)
    assert callable(expected)
    found = matrices(*rouge_l.unique_answers(items))
    for texts, matrix in zip(items, found, strict=True):
        want = [
            [1.0 if canonical(a) == canonical(b) else expected(a, b) for b in texts] for a in texts
        ]
        np.testing.assert_allclose(matrix, want, rtol=1e-12, atol=1e-12)
        assert (matrix == matrix.T).all()
        assert matrix.max() <= 1


def test_small_differences_in_numbers_show_in_character_ngrams() -> None:
    texts = [["-5", "5", "x = a + b", "x = a - b"]]
    matrix = lexical.char_ngram(*rouge_l.unique_answers(texts))[0]
    assert matrix[0, 1] < 1
    assert matrix[2, 3] < 1


def test_tokenless_answers_are_like_their_equals_by_default_only() -> None:
    distinct, where = rouge_l.unique_answers([["!!", "!!", "a"]])
    for measure in (lexical.jaccard, lexical.token_f1):
        assert measure(distinct, where, tokenize_unicode)[0][0, 1] == 1
        assert (
            measure(distinct, where, tokenize_unicode, "upstream")[0].tolist() == np.eye(3).tolist()
        )


def test_unigram_surprise_counts_the_answer_and_its_samples() -> None:
    found = ngram.selfcheck_ngram(
        [["paris is nice", "berlin"], [""], ["a"]],
        [["paris is big", "paris"], ["x"], ["a", "a"]],
        str.split,
    )
    count = Counter(["paris", "is", "nice", "berlin", "paris", "is", "big", "paris"])
    surprise = {token: -np.log(c / 8) for token, c in count.items()}
    first = [surprise[token] for token in ("paris", "is", "nice")]
    average, highest = found[0]
    np.testing.assert_allclose(average, [np.mean(first), surprise["berlin"]])
    np.testing.assert_allclose(highest, [max(first), surprise["berlin"]])
    assert np.isnan(found[1][0]).all()
    assert np.isnan(found[1][1]).all()
    assert found[2][0].tolist() == found[2][1].tolist() == [0.0]


def test_no_tokens_at_all() -> None:
    [(average, highest)] = ngram.selfcheck_ngram([[""]], [[""]], str.split)
    assert np.isnan(average).all()
    assert np.isnan(highest).all()
