"""The number that an answer gives."""

from __future__ import annotations

import re
from dataclasses import dataclass

from methods.score_hallucination.similarity.plain_text import plain_text

_DIGITS = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)?(?:\.\d+)?"
# A sign belongs to its number unless it joins two words, as in 2024-05.
_NUMBER = re.compile(
    rf"(?<![\w.^])(?<!\^[-+])(?P<sign>(?<!\w)[-+]|\bminus\s)?\s?(?:"
    rf"(?:(?P<whole>\d+)\s+)?(?P<top>\d+)\s*/\s*(?P<bottom>[1-9]\d*)(?![\d/])"
    rf"|10\s?\^\s?\(?\{{?(?P<bare>[-+]?\d+)\}}?\)?"
    rf"|(?P<digits>{_DIGITS})(?:[eE](?P<e>[-+]?\d+))?"
    rf"(?:\s?[×x*]\s?10\s?\^\s?\(?\{{?(?P<power>[-+]?\d+)\}}?\)?)?"
    rf")(?:\s(?P<scale>thousand|million|billion|trillion)\b)?\s?(?P<percent>%|percent\b)?",
    re.IGNORECASE,
)
_SCALES = {"thousand": 1e3, "million": 1e6, "billion": 1e9, "trillion": 1e12}
_BOXED = re.compile(r"\\boxed\s*\{")
_SAID = re.compile(
    r"(?:####|\b(?:final\s+)?answer\s*(?:is|=|:)|\btherefore,?|\bhence,?)", re.IGNORECASE
)
_MOST = 4_000


@dataclass(frozen=True)
class Number:
    """A number, and whether it was a percentage."""

    value: float
    percent: bool

    def is_(self, other: Number, tolerance: float) -> bool:
        """Whether both are the same: 50 % is 0.5, and 50 where the other is no percentage."""
        values = {self.value}
        if self.percent != other.percent:
            values.add(self.value / 100 if self.percent else self.value * 100)
        limit = tolerance * (abs(other.value) or 1.0)
        return any(abs(value - other.value) <= limit for value in values)


def given_number(text: str) -> Number | None:
    """The number that a text gives as its answer: in the last box, else the first one after the
    last words that announce it (`answer is`, `####`), else the last one of all."""
    boxes = list(_BOXED.finditer(text))
    if boxes:
        inside = numbers(plain_text(_inside(text[boxes[-1].end() :])))
        if inside:
            return inside[-1]
    plain = plain_text(text)
    said = list(_SAID.finditer(plain))
    for match in reversed(said[-3:]):
        line = plain[match.end() : match.end() + _MOST].split("\n")[0]
        result = line.rpartition("=")[2] if "=" in line else line
        after = numbers(result) or numbers(line)
        if after:
            # What follows "therefore" is a sentence, in which the result comes last.
            concluded = match[0].lower().startswith(("therefore", "hence")) and "=" not in line
            return after[-1 if concluded else 0]
    every = numbers(plain)
    return every[-1] if every else None


def numbers(text: str) -> list[Number]:
    """All numbers of a plain text: digit groups, decimals, fractions, powers of ten, percent."""
    found = []
    for match in _NUMBER.finditer(text):
        value = _value(match)
        if value is not None:
            if match["scale"]:
                value *= _SCALES[match["scale"].lower()]
            negative = (match["sign"] or "+").strip().lower() in ("-", "minus")
            found.append(Number(-value if negative else value, bool(match["percent"])))
    return found


def _value(match: re.Match[str]) -> float | None:
    if match["top"] is not None:
        return float(match["whole"] or 0) + int(match["top"]) / int(match["bottom"])
    if match["bare"] is not None:
        return _power(1.0, match["bare"])
    digits = match["digits"] or ""
    if not any(one.isdigit() for one in digits):
        return None
    value = float(digits.replace(",", ""))
    for exponent in (match["e"], match["power"]):
        if exponent is not None:
            value = _power(value, exponent)
    return value


def _power(value: float, exponent: str) -> float:
    # Beyond this there is no float.
    return float(f"{value!r}e{max(-400, min(400, int(exponent)))}") if value else 0.0


def _inside(text: str) -> str:
    """Up to the bracket that closes the one before."""
    depth = 1
    for place, one in enumerate(text[:_MOST]):
        depth += (one == "{") - (one == "}")
        if depth == 0:
            return text[:place]
    return text[:_MOST]
