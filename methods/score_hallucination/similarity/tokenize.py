"""Tokens of answers, and when two answers are the same."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from typing import Literal

import regex

Tokenizer = Literal["unicode", "paper"]

_PAPER = re.compile("[a-z0-9]+")

# Scripts without spaces go letter by letter; a sign belongs to its number unless it stands between
# two, and so does a leading point; a percentage is no plain number; an operator counts when it
# stands alone or says «not equal». Other punctuation carries no content.
_TOKENS = r"""
    {plain}
      (?<![{L}{N}])[+\-]?(?:(?<![{L}{N}.])\.)?[{N}]+(?:[.,:/][{N}]+)*(?![{L}{N}])
    {unspaced}
    | [{L}{N}_]+(?:['’][{L}]+)*
    | (?<=[{N}])[%‰]
    | !=+
    | [{S}]
    | (?<![^\s])[\-*/%](?![^\s])
"""
#: Scripts without spaces between words.
UNSPACED = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]"
_UNICODE = regex.compile(
    _TOKENS.format(
        L=r"\p{L}\p{M}",
        N=r"\p{N}",
        S=r"\p{S}",
        plain="",
        unspaced=rf"| {UNSPACED}\p{{M}}* | [\p{{L}}\p{{M}}\p{{N}}_]+?(?={UNSPACED})",
    ),
    regex.VERBOSE | regex.VERSION1,
)
# The same on case-folded ASCII, several times as fast; `plain` takes most words at the first look.
_ASCII = re.compile(
    _TOKENS.format(L="a-z", N="0-9", S="$+<=>^`|~", plain=r"[a-z]+(?![a-z0-9_'])|", unspaced=""),
    re.VERBOSE | re.ASCII,
)
_GROUPED = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")


def normalize(text: str) -> str:
    """NFKC, case folded, white space collapsed: two answers that agree here are the same."""
    if text.isascii():
        return " ".join(text.lower().split())
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def tokenize_paper(text: str) -> list[str]:
    """The official code's tokens (rouge_score without stemmer): runs of [a-z0-9], lower-cased."""
    return _PAPER.findall(text.lower())


def tokenize_unicode(text: str) -> list[str]:
    """Words of every script, numbers with sign and decimals, symbols; digit groups are joined."""
    folded = normalize(text).replace("\u2212", "-")
    if "," in folded:
        folded = _GROUPED.sub("", folded)
    return (_ASCII if folded.isascii() else _UNICODE).findall(folded)


_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])|\n+")


def sentences(text: str) -> list[str]:
    """The sentences of a text: up to a full stop, exclamation or question mark, or a line's end."""
    return [part.strip() for part in _SENTENCE_END.split(text) if part.strip()]


TOKENIZERS: dict[Tokenizer, Callable[[str], list[str]]] = {
    "unicode": tokenize_unicode,
    "paper": tokenize_paper,
}


def identity(tokenizer: Tokenizer) -> Callable[[str], str]:
    """The key under which equal answers meet: as written in paper mode, else normalised."""
    return (lambda text: text) if tokenizer == "paper" else normalize
