"""Answers without what only dresses them: markdown, LaTeX, typographic signs; and their words."""

from __future__ import annotations

import re
import unicodedata
from decimal import Decimal

import regex

#: Scripts without spaces between words.
UNSPACED = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]"
_SUPERSCRIPTS = {
    ord(sign): digit for sign, digit in zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻", "0123456789+-", strict=True)
}
_RAISED = regex.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻]+")
_SIGNS = str.maketrans(
    {
        **dict.fromkeys("\u2018\u2019\u201a\u201b\u02bc\u0060\u00b4", "'"),
        **dict.fromkeys("\u201c\u201d\u201e\u00ab\u00bb", '"'),
        **dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015\u2212", "-"),
        "\u2044": "/",
        # Nothing to see, nothing to compare.
        **dict.fromkeys("\u200b\u200c\u200d\u200e\u200f\u2060\ufeff\u00ad", ""),
    }
)
_WRAPPED = regex.compile(
    r"\\(?:boxed|fbox|text|textbf|textit|mathrm|mathbf|mathit|operatorname|emph)\s*"
    r"(\{(?:[^{}]++|(?1))*\})"
)
_FRACTION = regex.compile(r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}")
_SPACING = regex.compile(r"\\[,;:!> ]|\\quad\b|\\qquad\b|~")
_DELIMITERS = regex.compile(r"\\[()\[\]]|\\left\b|\\right\b|\$")
_FENCE = regex.compile(r"^\s*```.*$", regex.MULTILINE)
_LINE_START = regex.compile(r"^\s*(?:#{1,6}\s+(?=\S)|>\s*(?=\S)|[-*+]\s+(?=\S))", regex.MULTILINE)
_RULE = regex.compile(r"^\s*\|?(?:\s*:?-+:?\s*\|)+\s*(?::?-+:?)?\s*$", regex.MULTILINE)
_ROW = regex.compile(r"^\s*\|(.*)\|\s*$", regex.MULTILINE)
_GROUPED = regex.compile(r"(?<=\d)[\u00a0\u2009\u202f_](?=\d{3}(?!\d))")
_EMPHATIC = frozenset("*_~")
_DUNDER = regex.compile(r"(?<!\w)__[a-z][a-z0-9_]*__(?!\w)")
_MARKS = re.compile(r"[*_~`#>|\\$]|\{,\}|(?:^|\n)\s*[-+] ")
_EMPHASIS = regex.compile(r"(?<![\w\\])(\*\*|__|\*|_|~~)(?=\S)(.+?)(?<=\S)\1(?!\w)")


def plain_text(text: str) -> str:
    """A text as it is read: exponents as `^`, LaTeX and markdown without their marks, typographic
    quotes and dashes as the keyboard has them, digits of every script as 0 to 9."""
    found = text
    if not text.isascii():
        found = _RAISED.sub(lambda match: "^" + match[0].translate(_SUPERSCRIPTS), found)
        found = unicodedata.normalize("NFKC", _GROUPED.sub("", found)).translate(_SIGNS)
    elif not _MARKS.search(text):
        # Ordinary prose, as most of it.
        return text
    else:
        found = _GROUPED.sub("", found).replace("`", "'") if "```" not in found else found
    if not found.isascii():
        found = "".join(
            str(unicodedata.digit(one)) if one.isdecimal() and not one.isascii() else one
            for one in found
        )
    if "\\" in found or "$" in found or "{,}" in found:
        found = found.replace("{,}", ",")
        found = _FRACTION.sub(r"\1/\2", found)
        while _WRAPPED.search(found):
            found = _WRAPPED.sub(lambda match: match[1][1:-1], found)
        found = found.replace("\\times", "×").replace("\\cdot", "×")
        found = found.replace("\\%", "%").replace("\\$", "")
        found = _DELIMITERS.sub("", _SPACING.sub(" ", found))
    found = _LINE_START.sub("", _FENCE.sub("", found))
    if "|" in found:
        found = _ROW.sub(lambda match: match[1].replace("|", " "), _RULE.sub("", found))
    if not _EMPHATIC.isdisjoint(found):
        for _ in range(3):
            # Bold within italics within quotes: as often as people do.
            found = _EMPHASIS.sub(_unmarked, found)
    return found


def _unmarked(match: regex.Match[str]) -> str:
    # `__init__` is a name, `__Canberra__` is bold.
    return match[0] if _DUNDER.fullmatch(match[0]) else match[2]


_WORDS = regex.compile(
    rf"""
    (?P<number> (?<![\p{{L}}\p{{N}})\].])[-+]?
        (?: \d{{1,3}}(?:,\d{{3}})+(?!\d) | \d+ )(?:\.\d+)? | (?<![\p{{L}}\p{{N}}])[-+]?\.\d+ )
    | (?P<unspaced> {UNSPACED}\p{{M}}*)
    | (?P<word> (?:(?!{UNSPACED})[\p{{L}}\p{{M}}_])(?:(?!{UNSPACED})[\p{{L}}\p{{M}}\p{{N}}_])*
        (?:'(?:(?!{UNSPACED})[\p{{L}}])+)* (?:\+\+|\#)? )
    | (?P<digits> \d+(?:\.\d+)?)
    | (?P<sign> [%‰] | !=+ | [\p{{S}}--[\^`´]] | (?<![^\s])[\-*/](?![^\s]) | \^-?\d+ )
    """,
    regex.VERBOSE | regex.VERSION1,
)
_ARTICLES = frozenset({"a", "an", "the"})


def words_of(text: str) -> list[str]:
    """The words of a text that is compared with another: case, possessives and the punctuation
    around words do not count, numbers are their value (0.50 is 0.5, 1,000 is 1000, -5 is not 5)."""
    found: list[str] = []
    for match in _WORDS.finditer(plain_text(text).casefold()):
        word = match[0]
        if match.lastgroup in ("number", "digits"):
            found.append(_value(word))
        elif match.lastgroup == "word":
            found.append(word.removesuffix("'s").removesuffix("'"))
        else:
            found.append(word)
    return found


def without_articles(words: list[str]) -> list[str]:
    """Words but a, an and the, unless there is nothing else."""
    return [one for one in words if one not in _ARTICLES] or words


def _value(word: str) -> str:
    number = Decimal(word.replace(",", ""))
    text = format(number, "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return text if number else "0"
