"""The answer of a response to a problem, and whether it is right."""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction

from methods.responses.schema import Extractor

#: Boxes that are tried, from the end: a text of nothing but open ones ends too.
_MOST_BOXES = 20
_NUMBER = re.compile(r"(?:(?<![\w)\].])-)?(?:\d[\d,]*(?:\.\d+)?|\.\d+)(?:/\d+)?(?:[eE][-+]?\d+)?")
_CHOICES = (
    re.compile(r"\\boxed\{\s*(?:\\text\{)?\(?([A-Z])\)?\}?\s*\}"),
    re.compile(r"(?i:answer)(?i:\s+is|\s+would\s+be)?\s*[:=]?\s*\**\s*\(?([A-Z])\)?(?![A-Za-z])"),
    re.compile(r"(?i:choice|option)(?i:\s+is)?\s*[:=]?\s*\**\s*\(?([A-Z])\)?(?![A-Za-z])"),
    re.compile(r"^\W*([A-Z])(?:[).:]|\W*$)", re.MULTILINE),
    re.compile(r"(?<![A-Za-z'])\(?([B-HJ-Z])\)?(?![A-Za-z'])"),
)
_UNITS = re.compile(r"\\(?:text|mathrm|mbox|textbf)\s*\{([^{}]*)\}")


def extract(answer: str, how: Extractor) -> str | None:
    """The answer that a text gives, None where it gives none.

    Args:
        answer: what follows the thinking.
    """
    return _READERS[how](answer)


def is_right(answer: str, truth: str, how: Extractor) -> bool:
    """Whether the answer of a text is the right one.

    Numbers are compared by value, exactly; other texts without white space, dollar signs and what
    LaTeX adds for looks.
    """
    found = extract(answer, how)
    if found is None:
        return False
    if how == "exact":
        return _tidy(found) == _tidy(truth)
    if how == "choice":
        return found == (extract(truth, "choice") or truth.strip().upper())
    # gsm8k and its like: the answer stands behind a solution.
    wanted = extract(truth, how) or truth.rpartition("####")[2].strip()
    return _plain(found) == _plain(wanted) or _same_number(found, wanted)


def _boxed(text: str) -> str | None:
    """What is in the last `\\boxed{}` whose braces are balanced."""
    end = len(text)
    for _ in range(_MOST_BOXES):
        start = text.rfind("\\boxed", 0, end)
        if start < 0:
            return None
        rest = text[start + len("\\boxed") :].lstrip()
        if rest.startswith("{"):
            depth = 0
            for place, character in enumerate(rest):
                depth += (character == "{") - (character == "}")
                if depth == 0:
                    return rest[1:place].strip()
        elif rest[:1].strip():
            return rest.split()[0].rstrip("$.")
        end = start
    return None


def _last_number(text: str) -> str | None:
    found = _NUMBER.findall(text.replace("\u2212", "-"))
    return found[-1].replace(",", "") if found else None


def _choice(text: str) -> str | None:
    for pattern in _CHOICES:
        if found := pattern.findall(text):
            return str(found[-1])
    return None


def _tidy(text: str) -> str:
    return " ".join(text.split())


def _plain(text: str) -> str:
    text = text.replace("\u2212", "-").replace("\\$", "").replace("{,}", ",")
    text = _UNITS.sub(r"\1", text)
    for what, instead in (("dfrac", "frac"), ("tfrac", "frac"), ("\\left", ""), ("\\right", "")):
        text = text.replace(what, instead)
    text = re.sub(r"\\[!,;: ]|\\circ|\^\{?\\circ\}?|[$\s]|\\%|%", "", text)
    text = re.sub(r"\\frac(\d)(\d)", r"\\frac{\1}{\2}", text)
    return text.rstrip(".").lower()


def _same_number(one: str, other: str) -> bool:
    first, second = _number(one), _number(other)
    return first is not None and first == second


def _number(text: str) -> Fraction | None:
    # A unit behind a number says nothing of its value.
    plain = _plain(re.sub(r"(?<=\d)\s*\\(?:text|mathrm|mbox)\s*\{[^{}]*\}\s*$", "", text))
    # 1,234 is one number; 1,2 are two.
    if re.fullmatch(r"-?\d{1,3}(,\d{3})+(\.\d+)?", plain):
        plain = plain.replace(",", "")
    if found := re.fullmatch(r"(-?)\\frac\{(-?\d+)\}\{(\d+)\}", plain):
        plain = f"{found[1]}{found[2]}/{found[3]}".replace("--", "")
    try:
        return Fraction(plain) if len(plain) <= 64 and _small(plain) else None
    except (ValueError, ZeroDivisionError):
        return None


def _small(text: str) -> bool:
    """A power of ten that does not fill the memory."""
    found = re.search(r"e[-+]?(\d+)$", text)
    return found is None or int(found[1]) < 400


_READERS: dict[Extractor, Callable[[str], str | None]] = {
    "boxed": _boxed,
    "last-number": _last_number,
    "choice": _choice,
    "exact": lambda text: text.strip() or None,
}
