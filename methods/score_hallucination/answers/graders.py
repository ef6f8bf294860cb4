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

from methods.score_hallucination.similarity.rouge_l import rouge_l as rouge_l_matrices
from methods.score_hallucination.similarity.rouge_l import unique_answers
from methods.score_hallucination.similarity.tokenize import tokenize_unicode

Grader = Callable[[str, Sequence[str]], float]

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")
# A sign belongs to its number unless it joins two words, as in 2024-05.
_NUMBER = re.compile(
    r"(?:(?<!\w)[-+\u2212])?(?:\d+(?:,\d{3})+(?!\d)|\d+)?(?:\.\d+)?(?:[eE][-+]?\d+)?"
)
_BOUNDARY = "\x1f"
_ACCENTS = re.compile("[\u0300-\u036f]")


def squad_normalize(text: str) -> str:
    """Lower case, without ASCII punctuation and the articles a, an, the; white space collapsed.

    Source: the official SQuAD evaluation script.
    """
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def _gold(references: Sequence[str]) -> list[str]:
    """References that say something; if none does, saying nothing is right (SQuAD 2.0)."""
    return [reference for reference in references if squad_normalize(reference)] or [""]


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


def contains(answer: str, references: Sequence[str]) -> float:
    """1 when the words of a reference stand in the answer one after the other.

    Whole words only: "14" is not in "2014". Words of every script, see `tokenize_unicode`. A
    reference in plain ASCII finds accented words too, not the other way round.
    """
    marked = _marked(tokenize_unicode(answer))
    plain = _marked(tokenize_unicode(_without_accents(answer)))
    wanted = [(tokenize_unicode(r), plain if r.isascii() else marked) for r in references]
    return float(any(tokens and _marked(tokens) in words for tokens, words in wanted))


def _without_accents(text: str) -> str:
    return _ACCENTS.sub("", unicodedata.normalize("NFD", text))


def _marked(tokens: Sequence[str]) -> str:
    return _BOUNDARY + _BOUNDARY.join(tokens) + _BOUNDARY


def numeric(answer: str, references: Sequence[str], tolerance: float = 1e-6) -> float:
    """1 when the last number of the answer equals the last number of a reference.

    Digit groups and a trailing .0 make no difference. The tolerance is relative, and absolute for
    references below 1.
    """
    number = _last_number(answer)
    wanted = [_last_number(reference) for reference in references]
    return float(
        number is not None
        and any(w is not None and abs(number - w) <= tolerance * max(1.0, abs(w)) for w in wanted)
    )


def _last_number(text: str) -> float | None:
    numbers = [match for match in _NUMBER.findall(text) if any(c.isdigit() for c in match)]
    if not numbers:
        return None
    return float(numbers[-1].replace(",", "").replace("\u2212", "-"))


def rouge_l(answer: str, references: Sequence[str]) -> float:
    """The best ROUGE-L F-measure, over words of every script. Source: Lin 2004."""
    pairs = [[answer, reference] for reference in references]
    matrices = rouge_l_matrices(*unique_answers(pairs, "unicode"), "unicode")
    return max((float(matrix[0, 1]) for matrix in matrices), default=0.0)


GRADERS: dict[str, Grader] = {
    "exact": exact,
    "token_f1": token_f1,
    "contains": contains,
    "numeric": numeric,
    "rouge_l": rouge_l,
}
