"""SelfCheckGPT with unigrams (Manakul et al. 2023, arXiv:2303.08896): rare words are suspicious."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from methods.typing import FloatArray


def selfcheck_ngram(
    sentences: Sequence[Sequence[str]],
    samples: Sequence[Sequence[str]],
    tokenize: Callable[[str], list[str]],
) -> list[tuple[FloatArray, FloatArray]]:
    """Negative log-probability of sentences under a unigram model of the answer and its samples.

    The model of an item counts the tokens of its sentences and samples, unsmoothed, so every token
    of a sentence has a probability.

    Args:
        sentences: of each item, the answer that is judged, cut into sentences.
        samples: of each item, other answers.
        tokenize: text to tokens; the paper's are spaCy's, lower-cased.

    Returns:
        For each item the mean and the maximum over the tokens of every sentence, (sentences,)
        each, in [0, inf), higher is more suspicious; NaN for a sentence without a token. The
        official code scores a document by the mean over its sentences of the maximum.
    """
    known: dict[str, int] = {}
    token, item, sentence = [], [], []
    first = 0
    for index, (own, others) in enumerate(zip(sentences, samples, strict=True)):
        for position, text in enumerate([*own, *others]):
            found = [known.setdefault(t, len(known)) for t in tokenize(text)]
            token += found
            item += [index] * len(found)
            sentence += [first + position if position < len(own) else -1] * len(found)
        first += len(own)
    average, highest = _by_sentence(np.array(token), np.array(item), np.array(sentence), first)
    ends = np.cumsum([len(own) for own in sentences])[:-1]
    return list(zip(np.split(average, ends), np.split(highest, ends), strict=True))


def bounds(
    answers: Sequence[Sequence[str]],
    samples: Sequence[Sequence[str]],
    tokenize: Callable[[str], list[str]],
) -> tuple[FloatArray, FloatArray]:
    """The maximum of `selfcheck_ngram` for samples equal to the answer and for samples that share
    no token with it; (N,) each, equal where the samples have no token at all.

    A long answer surprises by its length alone: 20 different words have ln 20 whatever is sampled.
    """
    own = [highest[0] for _, highest in selfcheck_ngram(answers, [[]] * len(answers), tokenize)]
    sizes = np.array([sum(len(tokenize(text)) for text in texts) for texts in answers], float)
    others = np.array([sum(len(tokenize(text)) for text in texts) for texts in samples], float)
    low = np.array(own)
    with np.errstate(divide="ignore", invalid="ignore"):
        return low, low + np.log1p(others / sizes)


def _by_sentence(
    token: npt.NDArray[np.int64],
    item: npt.NDArray[np.int64],
    sentence: npt.NDArray[np.int64],
    count: int,
) -> tuple[FloatArray, FloatArray]:
    average, highest = np.full(count, np.nan), np.full(count, np.nan)
    if len(token) == 0:
        return average, highest
    _, word, seen = np.unique(
        item * (token.max() + 1) + token, return_inverse=True, return_counts=True
    )
    surprise = np.log(np.bincount(item)[item]) - np.log(seen[word])
    own = sentence >= 0
    tokens = np.bincount(sentence[own], minlength=count)
    total = np.bincount(sentence[own], surprise[own], minlength=count)
    np.divide(total, tokens, out=average, where=tokens > 0)
    largest = np.full(count, -np.inf)
    np.maximum.at(largest, sentence[own], surprise[own])
    return average, np.where(tokens > 0, largest, np.nan)
