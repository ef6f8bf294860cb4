"""The sentences of a text, and where they stand."""

from __future__ import annotations

import re
from dataclasses import dataclass

import sentencex

_LINE = re.compile(r"[^\n]+")
_WORDY = re.compile(r"\w")


@dataclass(frozen=True)
class Span:
    """A part of a text: `text[start:end]`, without space around it."""

    text: str
    start: int
    end: int


def sentence_spans(text: str) -> list[Span]:
    """The sentences of a text in any script; a line's end ends one. Those without a word are none.

    By sentencex, which knows abbreviations, numbers and quotes.
    """
    found: list[Span] = []
    at = 0
    for part in sentencex.segment("en", text):
        start = text.index(part, at)
        at = start + len(part)
        for line in _LINE.finditer(part):
            stripped = line[0].strip()
            if _WORDY.search(stripped):
                first = start + line.start() + line[0].index(stripped)
                found.append(Span(stripped, first, first + len(stripped)))
    return found


def sentences(text: str) -> list[str]:
    """The same without their places."""
    return [span.text for span in sentence_spans(text)]
