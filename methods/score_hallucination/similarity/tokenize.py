"""Tokens of answers, and when two answers are the same."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Collection
from typing import Literal

from methods.score_hallucination.similarity.identity import canonical_parts

Tokenizer = Literal["unicode", "paper"]

_PAPER = re.compile("[a-z0-9]+")

#: Signs that carry content wherever they stand.
_SIGNS = frozenset("?+<=>^|~$%\u2030\u2032!*/-")
#: These only beside a number or a variable: 3 - 2, but not well-known.
_OPERATORS = frozenset("-*/!")
#: Where one of these stands, brackets say what it is about.
_GROUPING = frozenset("^/*\u221a")


def tokenize_paper(text: str) -> list[str]:
    """The official code's tokens (rouge_score without stemmer): runs of [a-z0-9], lower-cased."""
    return _PAPER.findall(text.lower())


def tokenize_unicode(text: str) -> list[str]:
    """Words of every script, numbers with sign and decimals, symbols, of the text's `canonical`
    form; scripts without spaces go letter by letter. Other punctuation carries no content."""
    return content_of(canonical_parts(text))


def content_of(parts: list[str], keep: Collection[str] = ()) -> list[str]:
    """The parts of a canonical form that carry content.

    Args:
        keep: signs that do, where they stand beside a number or a variable.
    """
    if all(map(str.isalnum, parts)):
        return parts
    if not _GROUPING.isdisjoint(parts):
        # 2^(n+1) is not 2^n + 1.
        keep = {*keep, "(", ")"}
    if not _OPERATORS.isdisjoint(parts) or keep:
        return [
            part
            for place, part in enumerate(parts)
            if len(part) > 1 or part.isalnum() or _is_content(parts, place, keep)
        ]
    return [part for part in parts if len(part) > 1 or part.isalnum() or _is_sign(part)]


def _is_content(parts: list[str], place: int, keep: Collection[str]) -> bool:
    sign = parts[place]
    if sign in _OPERATORS or sign in keep:
        beside = (parts[k] for k in (place - 1, place + 1) if 0 <= k < len(parts))
        return any(_is_operand(part) or part in _GROUPING for part in beside)
    return _is_sign(sign)


def _is_sign(sign: str) -> bool:
    return sign in _SIGNS or unicodedata.category(sign or " ")[0] in "SLM"


def _is_operand(part: str) -> bool:
    return part.isalnum() and (len(part) == 1 or part[0].isdigit())


TOKENIZERS: dict[Tokenizer, Callable[[str], list[str]]] = {
    "unicode": tokenize_unicode,
    "paper": tokenize_paper,
}
