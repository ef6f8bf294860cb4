"""When two answers are the same: by what they say, not by how it is written.

One place for all that compares answers word by word: similarities, clusters by equality,
`exact_match`. Levels: `verbatim` as written; `surface` by the canonical form below; `paper` as
written, with the official code's tokens.
"""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Callable
from decimal import Decimal
from functools import lru_cache
from typing import Literal

import regex

from methods.score_hallucination.similarity.plain_text import UNSPACED, plain_text

Identity = Literal["verbatim", "surface", "paper"]

#: Longer texts are not worth their memory.
_KEPT_CHARACTERS = 4096

#: Without numbers, marks, quotes and lines: most answers.
_PROSE = re.compile(r"(?:[A-Za-z(][A-Za-z ,;:.()!?/-]*)?")
_PARTS = r"""
    (?<![{L}{N}./-])(?:
        \d{{4}}(?:-\d{{1,2}}-|/\d{{1,2}}/|\.\d{{1,2}}\.)\d{{1,2}}
        | \d{{1,2}}(?:-\d{{1,2}}-|/\d{{1,2}}/|\.\d{{1,2}}\.)\d{{4}}
    )(?![{L}{N}/-]|\.\d)
    | \d+(?:\.\d+){{2,}}
    | (?:(?<![{L}{N})\].])[-+])?(?:\d{{1,3}}(?:,\d{{3}})+(?!\d)|\d+)(?:\.\d+)?
        (?:[eE][-+]?\d+(?![{L}{N}]))?
    | (?:(?<![{L}{N})\].])[-+])?(?<![{L}{N}.])\.\d+
    {unspaced}
    | {word}+(?:'{letter}+)*(?:\+\+|\#)?
    | \S
"""
_ASCII = re.compile(
    _PARTS.format(L="A-Za-z", N="0-9", unspaced="", word="[A-Za-z0-9_]", letter="[A-Za-z]"),
    re.VERBOSE | re.ASCII,
)
_UNICODE = regex.compile(
    _PARTS.format(
        L=r"\p{L}\p{M}",
        N=r"\p{N}",
        unspaced=rf"| {UNSPACED}\p{{M}}*",
        word=rf"(?:(?!{UNSPACED})[\p{{L}}\p{{M}}\p{{N}}_])",
        letter=rf"(?:(?!{UNSPACED})\p{{L}})",
    ),
    regex.VERBOSE | regex.VERSION1,
)
_TIMES = re.compile(r"(?<=\d)\s*[x\u00b7]\s*(?=10\s?\^)")
_POWER = re.compile(r"(?<![\w.,])(\d+(?:\.\d+)?)\s*\*\s*10\s?\^\s?\(?([-+]?\d+)\)?")
_NAMES = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_MONTHS = {name: number for number, name in enumerate(_NAMES, start=1)}
_MONTH = re.compile(r"(?i)\b(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\.?,?\s*\d")
_OF_MONTH = (
    r"(?P<month>jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?"
    r"|sept?(?:ember)?|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)\.?"
)
_DAY = r"(?P<day>0?[1-9]|[12]\d|3[01])(?:st|nd|rd|th)?"
_YEAR = r"(?P<year>\d{4})\b"
_MONTH_FIRST = re.compile(rf"(?i)\b{_OF_MONTH}\s+{_DAY},?\s+{_YEAR}")
_DAY_FIRST = re.compile(rf"(?i)(?<![\w.,]){_DAY}\s+(?:of\s+)?{_OF_MONTH},?\s+{_YEAR}")
#: Feet, minutes, derivatives: f'(x), 5'.
_PRIMES = re.compile(r"(?<=[A-Za-z0-9)])'(?=\s*\()|(?<=\d)'(?!\w)")
_INCHES = re.compile(r'(?<=\d)"')
_SCALES = frozenset({"hundred", "thousand", "million", "billion", "trillion"})
#: What begins a number, once its sign is off.
_NUMERIC = frozenset("0123456789.")
_DOTTED_DATE = re.compile(r"\d{4}\.\d{1,2}\.\d{1,2}|\d{1,2}\.\d{1,2}\.\d{4}")
_NUMERAL = re.compile("(?<![A-Za-z0-9_])[0-9]")
#: Of text without numbers.
_WORDS = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:'[A-Za-z]+)*(?:\+\+|#)?|\S")
#: What ends a text and says nothing.
_STOPS = frozenset(".!\u3002\uff61\u0964\u06d4\u1362\u0589")
#: Quotes around words.
_QUOTES = frozenset("\"'")
#: After these a number is a name: 3.10 is not 3.1.
_VERSIONED = frozenset(
    {"version", "v", "release", "section", "chapter", "figure", "table", "python", "php", "ruby"}
    | {"ubuntu", "node", "ios", "android", "macos", "java", "go", "rust", "gcc", "cuda", "kernel"}
)
_PREFIXED = frozenset({"W", "Wh", "V", "VA", "A", "Ah", "Hz", "B", "b", "bps", "Bps", "bit", "Pa"})
_PREFIXED |= {"J", "N", "Nm", "g", "m", "s", "S", "L", "eV", "cal", "F", "H", "T", "C", "K"}
_PREFIXED |= {"mol", "Bq", "Sv", "Gy", "lm", "bar", "\u03a9", "\u2126"}
_PREFIXES = ("", *"yzafpn\u03bcmcdhkMGTPEZY", "da")
_SYMBOLS = {prefix + base for prefix in _PREFIXES for base in _PREFIXED} | {
    prefix + base for prefix in "K" for base in ("B", "b", "bps", "bit")
}
#: Other spellings of a unit: a litre has two, and bytes and hertz are often written small.
_USUAL = {prefix + "l": prefix + "L" for prefix in _PREFIXES} | {
    **{"KB": "kB", "kb": "kB", "mb": "MB", "gb": "GB", "tb": "TB", "pb": "PB"},
    **{"mbps": "Mbps", "gbps": "Gbps", "mhz": "MHz"},
}
_SPELLINGS: dict[str, set[str]] = {}
for _symbol in _SYMBOLS:
    _SPELLINGS.setdefault(_symbol.casefold(), set()).add(_symbol)
#: Units that are others in another case, as mW and MW.
_BY_CASE = {unit for units in _SPELLINGS.values() if len(units) > 1 for unit in units}
#: What a unit in mixed case looks like.
_CAMEL = re.compile(r"[a-z][A-Z](?![A-Za-z])")
_MIXED_CASE = {
    unit for unit in _BY_CASE if unit[0].islower() and unit[1:].isupper() and len(unit) == 2
} - {"pH"}


def canonical(text: str) -> str:
    """The words, numbers and signs of a text, a space between each.

    Not part of it: case (but of units that differ by it, and in code), spacing (but the indentation
    of code), markdown, LaTeX wrappers, quotes, zero-width signs, a full stop at the end. Numbers
    and dates have one form: 0.50 is 0.5, 1,000 is 1000, 5km is 5 km, 2024/5/1 is 2024-05-01;
    exponents stay: 10\u2075 is 10 ^ 5.
    """
    return " ".join(canonical_parts(text))


def canonical_parts(text: str) -> list[str]:
    """The same as a list; not to be changed."""
    return _canonical(text) if len(text) > _KEPT_CHARACTERS else _remembered(text)


def key_of(level: Identity) -> Callable[[str], str]:
    """The key under which equal answers meet."""
    return canonical if level == "surface" else str


def _canonical(text: str) -> list[str]:
    if _PROSE.fullmatch(text):
        if _CAMEL.search(text):
            parts = list(map(_folded, _WORDS.findall(text)))
        else:
            parts = _WORDS.findall(text.lower())
    elif "```" in text or "~~~" in text or "\n" in text:
        parts = _of_blocks(text)
    else:
        parts = _parts(plain_text(text))
    while parts and parts[-1] in _STOPS and not _is_factorial(parts):
        parts.pop()
    return parts


def _is_factorial(parts: list[str]) -> bool:
    """Whether the last sign belongs to a number or a variable: 5!, n!."""
    before = parts[-2] if len(parts) > 1 else ""
    return parts[-1] == "!" and (before == ")" or before[:1].isdigit() or len(before) == 1)


def _of_blocks(text: str) -> list[str]:
    """Prose and fenced code in turn; a text without a fence is code by its indentation."""
    if "```" not in text and "~~~" not in text:
        return _of_code(text) if _is_code(text) else _parts(plain_text(text))
    found, at = [], 0
    for block in _FENCED.finditer(text):
        found += _parts(plain_text(text[at : block.start()]))
        inside = block[1]
        found += _of_code(inside) if _is_code(inside) else _parts(plain_text(inside))
        at = block.end()
    return found + _parts(plain_text(text[at:]))


_remembered = lru_cache(maxsize=8192)(_canonical)

_FENCED = re.compile(r"(?:```|~~~)[^\n`]*\n(.*?)\n?[ \t]*(?:```|~~~)", re.DOTALL)
#: An indented line that is no item of a list, below another line.
_INDENTED = re.compile(r"\S[^\n]*\n(?: {2,}|\t+)(?![-*+>|\s]|\d+[.)])")


def _is_code(text: str) -> bool:
    """Whether the indentation of a text says something: it has some, and is no JSON."""
    if not _INDENTED.search(text):
        return False
    if text.lstrip()[:1] in ("[", "{"):
        try:
            json.loads(text)
        except (ValueError, RecursionError):
            return True
        return False
    return True


def _of_code(code: str) -> list[str]:
    """Code part by part, case kept, with a mark where the indentation changes."""
    found, before = [], 0
    lines = textwrap.dedent(code.expandtabs(4)).splitlines()
    for line in (line.rstrip() for line in lines if line.strip()):
        depth = len(line) - len(line.lstrip())
        if depth != before:
            found.append(f"\u21e5{depth}")
        before = depth
        parser = _ASCII if line.isascii() else _UNICODE
        found += parser.findall(line)
    return found


def _parts(plain: str) -> list[str]:
    if plain.isascii() and "'" not in plain and not _NUMERAL.search(plain):
        # Numbers within a word are part of it.
        return [part for part in map(_folded, _WORDS.findall(plain)) if part not in _QUOTES]
    found: list[str] = []
    plain = _TIMES.sub("*", plain.replace("\u00d7", "*").replace("\u00f7", "/"))
    if "*10^" in plain or "* 10^" in plain or "*10 ^" in plain:
        plain = _POWER.sub(_scientific, plain)
    if _MONTH.search(plain):
        plain = _DAY_FIRST.sub(_named_date, _MONTH_FIRST.sub(_named_date, plain))
    if "'" in plain or '"' in plain:
        plain = _PRIMES.sub("\u2032", plain)
        if plain.count('"') % 2:
            plain = _INCHES.sub("\u2032\u2032", plain)
    depth = 0
    after_number = False
    for part in (_ASCII if plain.isascii() else _UNICODE).findall(plain):
        start = part[0]
        was_number, after_number = after_number, False
        if start.isalpha() or start == "_":
            unit = _USUAL.get(part, part) if was_number else ""
            found.append(unit if _is_unit(unit) else _folded(part))
            after_number = was_number and part in _SCALES
        elif len(part) == 1 and not start.isdigit():
            after_number = was_number and part in "-("
            depth += (part in "[{") - (part in "]}" and depth > 0)
            if part not in _QUOTES:
                found.append(part)
        elif part.lstrip("+-")[:1] not in _NUMERIC:
            found.append(part.casefold())
        elif "/" in part or part.count("-", 1) == 2 or _DOTTED_DATE.fullmatch(part):
            found.append(_date(part))
        elif part.count(".") > 1:
            found.append(part)
        else:
            after_number = True
            # In a list, the comma divides.
            for place, one in enumerate(part.split(",") if depth else [part]):
                found += [",", _number(one, found)] if place else [_number(one, found)]
    return found


def _folded(word: str) -> str:
    """A word without its case, but of units as mW, which are written so nowhere else."""
    return word if word in _MIXED_CASE else word.casefold()


def _scientific(match: re.Match[str]) -> str:
    exponent = int(match[2])
    return f"{match[1]}e{exponent}" if abs(exponent) < 400 else match[0]


def _named_date(match: re.Match[str]) -> str:
    day, year = int(match["day"]), int(match["year"])
    return f"{year:04}-{_MONTHS[match['month'][:3].lower()]:02}-{day:02}"


def _is_unit(word: str) -> bool:
    return word in _BY_CASE or len(word) == 1


def _number(part: str, before: list[str]) -> str:
    if before and before[-1] in _VERSIONED:
        return part
    digits = part.lstrip("+-")
    if digits.isdigit() and digits.startswith("0") and len(digits) > 1:
        # 007 is a name.
        return part.removeprefix("+")
    number = Decimal(part.replace(",", ""))
    if number == 0:
        return "0"
    if abs(number.adjusted()) > 40:
        return part.casefold()
    text = format(number, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def _date(part: str) -> str:
    numbers = [int(one) for one in re.split("[-/.]", part)]
    if numbers[0] > 31:
        year, month, day = numbers
    elif numbers[0] > 12:
        day, month, year = numbers
    elif numbers[1] > 12:
        month, day, year = numbers
    else:
        # 1/5/2024 is in May or in January.
        return "/".join(map(str, numbers))
    return f"{year:04}-{month:02}-{day:02}"
