"""Texts without what only dresses them: markdown, LaTeX, HTML, typographic signs."""

from __future__ import annotations

import html
import re
import unicodedata

import regex

#: Scripts without spaces between words.
UNSPACED = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]"

_SUPERSCRIPTS = {
    ord(sign): plain for sign, plain in zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁽⁾ⁿⁱˣ", "0123456789+-()nix", strict=True)
}
_RAISED = regex.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁽⁾ⁿⁱˣ]+")
#: One sign that is a unit with its exponent, as Unicode would write it `m2`.
_SQUARED = {
    ord("㎡"): "m^2",
    ord("㎥"): "m^3",
    ord("㎢"): "km^2",
    ord("㎠"): "cm^2",
    ord("㎟"): "mm^2",
    ord("㎤"): "cm^3",
}
_SIGNS: dict[int, str] = _SQUARED | str.maketrans(
    {
        **dict.fromkeys("\u2018\u2019\u201a\u201b\u02bc\u00b4\u02b9", "'"),
        **dict.fromkeys("\u201c\u201d\u201e\u00ab\u00bb\u2039\u203a", '"'),
        **dict.fromkeys("\u300c\u300d\u300e\u300f", '"'),
        **dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015\u2212", "-"),
        "\u2044": "/",
        # Decimal point, digit groups and percent of Arabic.
        "\u066b": ".",
        "\u066c": ",",
        "\u066a": "%",
        # Nothing to see, nothing to compare.
        **dict.fromkeys("\u200b\u200c\u200d\u200e\u200f\u2060\ufeff\u00ad\u061c\ufe0e\ufe0f", ""),
        **dict.fromkeys("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069", ""),
        **dict.fromkeys("\u2061\u2062\u2063\u2064", ""),
    }
)
#: Between a whole number and a vulgar fraction.
_MIXED = regex.compile(r"(?<=\p{Nd})(?=[\u00bc-\u00be\u2150-\u215e])")
_GROUPED = regex.compile(r"(?<=\d)[\u00a0\u2009\u202f_'](?=\d{3}(?!\d))")

# -- LaTeX ---------------------------------------------------------------------------------------
_WRAPPED = regex.compile(
    r"\\(?:boxed|fbox|text|textbf|textit|textrm|mathrm|mathbf|mathit|operatorname|emph)\s*"
    r"(\{(?:[^{}]++|(?1))*\})"
)
_SHORT_FRACTION = regex.compile(r"\\[dt]?frac\s*(\d)\s*(\d)")
_FRACTION = regex.compile(r"(\d)?\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}")
_THIN = regex.compile(r"(?<=\d)(?:\\[,;:!]\s?)+(?=\d{3}(?!\d))")
_AFTER_COMMA = regex.compile(r"(?<=\d,)\\!(?=\d)")
_SPACING = regex.compile(r"\\[,;:!> ]|\\quad\b|\\qquad\b|~")
_DELIMITERS = regex.compile(r"\\[()\[\]{}]|\\left\b|\\right\b|\$")
_BRACES = {r"\{": "{", r"\}": "}"}
_EXPONENT = regex.compile(r"\^\s*\{([^{}]*)\}")
_SUBSCRIPT = regex.compile(r"(?<=[\p{L}\p{N}])_(?:\{(\w+)\}|(\d+))")
_DEGREES = regex.compile(r"\^\s*\{?\\circ\}?")
_ROOT = regex.compile(r"\\sqrt\s*\{([^{}]*)\}")
_NAMED = {
    "times": "×", "cdot": "×", "div": "÷", "pm": "±", "le": "≤", "leq": "≤", "ge": "≥",
    "geq": "≥", "ne": "≠", "neq": "≠", "approx": "≈", "infty": "∞", "pi": "π", "alpha": "α",
    "beta": "β", "gamma": "γ", "delta": "δ", "theta": "θ", "lambda": "λ", "mu": "μ",
    "sigma": "σ", "omega": "ω", "Omega": "Ω", "Delta": "Δ", "to": "→", "rightarrow": "→",
    "circ": "°", "%": "%", "&": "&", "#": "#", "_": "_",
}  # fmt: skip
_MACRO = regex.compile(r"\\([A-Za-z]+|[%&#_])\s?")
_SIMPLE = regex.compile(r"-?[\p{L}\p{N}.]+")

# -- markdown and HTML ---------------------------------------------------------------------------
_MARKS = re.compile(r"[*_~`#>|\\$&<\[{'^\u2022\u25e6\u25aa]|(?:^|\n)[ \t]*[-+](?: |-+\s*(?:\n|$))")
_FENCE = regex.compile(r"^[ \t]*(?:```|~~~).*$", regex.MULTILINE)
_LINE_START = regex.compile(
    r"^[ \t]*(?:#{1,6}[ \t]+(?=\S)|>[ \t]*(?=[^\s\d=])|[-*+\u2022\u25e6\u25aa][ \t]+(?=\S))",
    regex.MULTILINE,
)
_HORIZONTAL = regex.compile(r"^[ \t]*([-*_])(?:[ \t]*\1){2,}[ \t]*$", regex.MULTILINE)
_RULE = regex.compile(
    r"^[ \t]*\|?(?:[ \t]*:?-+:?[ \t]*\|)+[ \t]*(?::?-+:?)?[ \t]*$", regex.MULTILINE
)
_ROW = regex.compile(r"^[ \t]*\|(.*\|.*)\|[ \t]*$", regex.MULTILINE)
_LINK = regex.compile(r"!?\[([^\]\n]*)\]\((?:https?:|mailto:|www\.|/|#)[^\s()]*(?:\([^\s()]*\))?\)")
_ESCAPED = regex.compile(r"\\([_*#`~>\-+.!])")
_TAG = regex.compile(r"</?(?:b|i|u|em|strong|p|br|span|code|tt|mark|sub)\s*/?>", regex.IGNORECASE)
_RAISED_TAG = regex.compile(r"<sup>\s*([^<]*?)\s*</sup>", regex.IGNORECASE)
_EMPHATIC = frozenset("*_~")
_DUNDER = regex.compile(r"(?<!\w)__[a-z][a-z0-9_]*__(?!\w)")
#: Within words of scripts without spaces too; not in 2**3, nor in snake_case.
_STRONG = regex.compile(
    r"(?<![A-Za-z0-9_)\]\\*])(\*\*|~~)(?=\S)(.+?)(?<=\S)\1(?:(?![A-Za-z0-9_*])|(?<=[:.!?]\1))"
)
_EMPHASIS = regex.compile(r"(?<![\w\\])(__|\*|_)(?=\S)(.+?)(?<=\S)\1(?!\w)")


def plain_text(text: str) -> str:
    """A text as it is read: exponents as `^`, LaTeX, markdown and simple HTML without their marks,
    typographic quotes and dashes as the keyboard has them, digits of every script as 0 to 9."""
    found = text
    if not text.isascii():
        found = _RAISED.sub(lambda match: "^" + match[0].translate(_SUPERSCRIPTS), found)
        found = _GROUPED.sub("", _MIXED.sub(" ", found)).translate(_SIGNS)
        found = unicodedata.normalize("NFKC", found).translate(_SIGNS)
        if not found.isascii():
            found = "".join(
                str(unicodedata.digit(one)) if one.isdecimal() and not one.isascii() else one
                for one in found
            )
    if not _MARKS.search(found):
        # Ordinary prose, as most of it.
        return found
    found = _GROUPED.sub("", found)
    if "&" in found and ";" in found:
        found = html.unescape(found)
    if "<" in found:
        found = _TAG.sub(" ", _RAISED_TAG.sub(r"^{\1}", found))
    if "](" in found:
        found = _LINK.sub(r"\1", found)
    if "\\" in found or "$" in found or "{,}" in found:
        found = _without_latex(found)
    if "^" in found:
        found = _EXPONENT.sub(_exponent, found)
    if "`" in found:
        found = _FENCE.sub("", found).replace("`", "")
    found = _LINE_START.sub("", _HORIZONTAL.sub("", found))
    if "|" in found:
        found = _ROW.sub(lambda match: match[1].replace("|", " "), _RULE.sub("", found))
    if not _EMPHATIC.isdisjoint(found):
        for _ in range(3):
            # Bold within italics within quotes: as often as people do.
            found = _EMPHASIS.sub(_unmarked, _STRONG.sub(r"\2", found))
    return found


def _without_latex(text: str) -> str:
    found = _AFTER_COMMA.sub("", _THIN.sub("", text.replace("{,}", ",")))
    found = _SHORT_FRACTION.sub(r"\1/\2", found)
    for _ in range(3):
        found = _FRACTION.sub(_fraction, found)
    for _ in range(10):
        if not _WRAPPED.search(found):
            break
        found = _WRAPPED.sub(lambda match: match[1][1:-1], found)
    found = _ROOT.sub(r"√(\1)", _DEGREES.sub("°", found))
    found = found.replace("\\$", "")
    math = "$" in found or "\\(" in found or "\\[" in found
    if math:
        found = _SUBSCRIPT.sub(lambda match: match[1] or match[2], found)
    found = _ESCAPED.sub(r"\1", found) if not math else found
    found = _DELIMITERS.sub(lambda match: _BRACES.get(match[0], ""), _SPACING.sub(" ", found))
    return _MACRO.sub(lambda match: _NAMED.get(match[1], match[0]), found)


def _fraction(match: regex.Match[str]) -> str:
    whole, top, bottom = match.groups()
    return f"{whole + ' ' if whole else ''}{_bracketed(top)}/{_bracketed(bottom)}"


def _exponent(match: regex.Match[str]) -> str:
    return "^" + _bracketed(match[1])


def _bracketed(text: str) -> str:
    text = text.strip()
    # A digit and a letter are two factors: e^{2x} is not e^2 x.
    simple = _SIMPLE.fullmatch(text) and (text.isalpha() or not any(map(str.isalpha, text)))
    return text if simple else f"({text})"


def _unmarked(match: regex.Match[str]) -> str:
    # `__init__` is a name, `__Canberra__` is bold.
    return match[0] if _DUNDER.fullmatch(match[0]) else match[2]
