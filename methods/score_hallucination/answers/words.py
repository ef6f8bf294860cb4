"""The words of an answer that graders compare with those of a reference."""

from __future__ import annotations

import regex

from methods.score_hallucination.similarity.identity import canonical_parts
from methods.score_hallucination.similarity.tokenize import content_of

_ARTICLES = frozenset({"a", "an", "the"})
#: As in l'Allemagne and dell'arte.
_ELIDED = regex.compile(r"^(?:[ldjnscmt]|qu|dell|all|nell|sull|dall|un)'(?=\p{L})")


def words_of(text: str) -> list[str]:
    """The words of a text in its canonical form: case, possessives and the punctuation around
    words do not count; numbers are their value, with their exponent and unit."""
    found: list[str] = []
    parts = content_of(canonical_parts(text), keep={":", "^"})
    for part in parts:
        if part.isalpha() or "'" in part:
            found.append(_ELIDED.sub("", part).removesuffix("'s").removesuffix("'"))
        elif found and (part == "^" or found[-1].endswith("^")):
            # 10^5 is one number, not a 10 beside a 5.
            found[-1] += part
        else:
            found.append(part)
    return found


def without_articles(words: list[str]) -> list[str]:
    """Words but a, an and the, unless there is nothing else."""
    return [one for one in words if one not in _ARTICLES] or words
