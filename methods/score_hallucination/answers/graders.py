"""Is an answer right? Graders of an answer against references, each from 0 (wrong) to 1 (right).

A grader takes the answer and its references and returns the best agreement with any of them. Keep
the grader's name with the label: "14" against "14.0" is wrong by token F1 and right by `numeric`.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence

import regex

from methods.score_hallucination.answers.numbers import given_number
from methods.score_hallucination.answers.words import without_articles, words_of
from methods.score_hallucination.similarity.rouge_l import rouge_l as rouge_l_matrices
from methods.score_hallucination.similarity.rouge_l import unique_answers

Grader = Callable[[str, Sequence[str]], float]

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_BOUNDARY = "\x1f"
_ACCENTS = re.compile("[\u0300-\u036f]")
#: Letters that are no letter with an accent, as plain texts write them.
_LETTERS = str.maketrans("\u00f8\u00d8\u0142\u0141\u0111\u0110\u0131", "oOlLdDi")
_HANGUL = regex.compile(r"\p{Hangul}")


def squad_normalize(text: str) -> str:
    """Lower case, without ASCII punctuation and the articles a, an, the; white space collapsed.

    Source: the official SQuAD evaluation script.
    """
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def _gold(references: Sequence[str]) -> list[str]:
    """References that say something; if none does, saying nothing is right (SQuAD 2.0)."""
    return [one for one in references if squad_normalize(one) or words_of(one)] or [""]


def exact(answer: str, references: Sequence[str]) -> float:
    """1 when the normalised answer equals a normalised reference. Source: SQuAD 2.0."""
    normalised = squad_normalize(answer)
    return float(any(normalised == squad_normalize(reference) for reference in _gold(references)))


def token_f1(answer: str, references: Sequence[str]) -> float:
    """F1 of the normalised tokens, counted with repetition. Source: SQuAD 2.0.

    The SNNE paper calls an answer right when this is at least 0.5.
    """
    tokens = squad_normalize(answer).split()
    return max(_f1(tokens, squad_normalize(reference).split()) for reference in _gold(references))


def _f1(tokens: list[str], gold: list[str]) -> float:
    if not tokens or not gold:
        return float(tokens == gold)
    common = sum((Counter(tokens) & Counter(gold)).values())
    return 2 * common / (len(tokens) + len(gold))


def same_answer(answer: str, references: Sequence[str]) -> float:
    """1 when an answer has the words of a reference and no others, articles left out.

    Case, markup, possessives and the punctuation around words do not count; decimals, signs and
    what is part of a name (C++, C#) do.
    """
    words = without_articles(words_of(answer))
    plain = without_articles(words_of(_without_accents(answer)))
    return float(
        any(
            (plain if one.isascii() else words) == without_articles(words_of(one))
            for one in _gold(references)
        )
    )


def word_f1(answer: str, references: Sequence[str]) -> float:
    """`token_f1` over the words of `same_answer`."""
    words = without_articles(words_of(answer))
    return max(_f1(words, without_articles(words_of(one))) for one in _gold(references))


def contains(answer: str, references: Sequence[str]) -> float:
    """1 when the words of a reference stand in the answer one after the other.

    Whole words only: "14" is not in "2014". Words as in `same_answer`; scripts without spaces go
    letter by letter. A reference in plain ASCII finds accented words too, not the other way round.
    """
    marked = _marked(words_of(answer))
    plain = _marked(words_of(_without_accents(answer)))
    wanted = [(words_of(one), plain if one.isascii() else marked) for one in references]
    if any(words and _marked(words) in own for words, own in wanted):
        return 1.0
    # Particles are written onto a Korean word.
    korean = [one.strip() for one in references if _HANGUL.search(one)]
    return float(any(regex.search(rf"(?<!\p{{Hangul}}){regex.escape(k)}", answer) for k in korean))


def _without_accents(text: str) -> str:
    return _ACCENTS.sub("", unicodedata.normalize("NFD", text)).translate(_LETTERS)


def _marked(tokens: Sequence[str]) -> str:
    return _BOUNDARY + _BOUNDARY.join(tokens) + _BOUNDARY


def numeric(answer: str, references: Sequence[str], tolerance: float = 1e-6) -> float:
    """1 when the number that the answer gives is that of a reference; see `given_number`.

    Digit groups, a trailing .0, fractions, powers of ten and LaTeX make no difference. The
    tolerance is relative, and absolute for a reference of 0.
    """
    number = given_number(answer)
    wanted = [given_number(reference) for reference in references]
    return float(
        number is not None and any(w is not None and number.is_(w, tolerance) for w in wanted)
    )


def rouge_l(answer: str, references: Sequence[str]) -> float:
    """The best ROUGE-L F-measure, over words of every script. Source: Lin 2004."""
    pairs = [[answer, reference] for reference in references]
    matrices = rouge_l_matrices(*unique_answers(pairs), "unicode")
    return max((float(matrix[0, 1]) for matrix in matrices), default=0.0)


GRADERS: dict[str, Grader] = {
    "exact": same_answer,
    "token_f1": word_f1,
    "contains": contains,
    "numeric": numeric,
    "rouge_l": rouge_l,
}
#: As SQuAD's script has them: all ASCII punctuation is deleted, so that 1.5 is 15 and -5 is 5.
SQUAD: dict[str, Grader] = {"exact": exact, "token_f1": token_f1}
