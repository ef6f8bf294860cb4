"""Which texts are kept: duplicates, balance of labels, and the rules of the official code."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

import numpy as np

from methods.typing import FloatArray, IntArray

_OFFICIAL_SIGNS = re.compile(r"[*;:_\n\-'<>{}\[\]()/\\|=+%@~`^#$&]")
_OFFICIAL_WORD = re.compile(r"^[a-z]+(['-][a-z]+)*$")
_EDGES = re.compile(r"^\W+|\W+$")


def normalised(text: str) -> str:
    """What two texts have in common that count as one: case, width and white space aside."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def duplicates(texts: Sequence[str]) -> list[bool]:
    """Which texts repeat an earlier one."""
    seen: set[str] = set()
    found = []
    for text in texts:
        key = normalised(text)
        found.append(key in seen)
        seen.add(key)
    return found


def unbalanced(metric: FloatArray, labels: IntArray, floors: Sequence[int]) -> IntArray:
    """Which texts to drop so that no label is worse than the others.

    From each label the worst (largest metric) go until its mean is no more than the smallest mean
    among the labels, but never more than half of a label, nor below its floor.

    Args:
        metric: (n,), small is good. labels: (n,) 0, 1, ... floors: what each label keeps at least.

    Returns:
        The dropped places, worst first, label by label.
    """
    present = sorted(set(labels.tolist()))
    places = {label: np.flatnonzero(labels == label) for label in present}
    goal = min(float(metric[rows].mean()) for rows in places.values()) if present else 0.0
    dropped: list[int] = []
    for label, rows in places.items():
        order = rows[np.argsort(metric[rows], kind="stable")]
        least = max(len(rows) - len(rows) // 2, floors[label])
        end = len(order)
        while end > least and float(metric[order[:end]].mean()) > goal:
            end -= 1
        dropped += order[end:][::-1].tolist()
    return np.array(dropped, dtype=np.int64)


def official_ban(text: str) -> bool:
    """Whether the official code never writes a token with this text."""
    if _OFFICIAL_SIGNS.search(text) or len(text) > 17:
        return True
    return _OFFICIAL_WORD.match(_EDGES.sub("", text.lower().strip())) is None


def official_clean(text: str) -> str:
    """A text as the official code cleans it, defects included: it loses parts of numbers."""
    text = text.replace("...", "")
    # The dots are unescaped there too: a 3 or a 2 goes with whatever follows it.
    for lost in (r"\n", r"<\|endoftext\|>", r"\"", "###", "3.", "2."):
        text = re.sub(lost, "", text)
    return text.split("You")[0].split("Exercise")[0].strip()


def official_top(
    texts: Sequence[str], labels: Sequence[int], metric: Sequence[float], count: int
) -> list[int]:
    """The `count` texts of least metric of each label, label by label.

    Of equal texts of a label the last stands for all, at the place of the first.
    """
    last = {(label, text): row for row, (label, text) in enumerate(zip(labels, texts, strict=True))}
    found = []
    for label in dict.fromkeys(labels):
        rows = [row for (of, _), row in last.items() if of == label]
        found += sorted(rows, key=lambda row: metric[row])[:count]
    return found


def official_balance(labels: Sequence[int], metric: Sequence[float]) -> list[int]:
    """Drop the worst of the label of two with the larger mean until it is no larger.

    Returns:
        What is kept: the other label in its order, then this one from its worst to its best.
    """
    groups: dict[int, list[int]] = {}
    for place, label in enumerate(labels):
        groups.setdefault(label, []).append(place)
    first, second = (groups[label] for label in sorted(groups))

    def mean(rows: list[int]) -> float:
        return sum(metric[place] for place in rows) / len(rows)

    other, worse = (first, second) if mean(second) > mean(first) else (second, first)
    goal = mean(other)
    worse = sorted(worse, key=lambda place: metric[place], reverse=True)
    while len(worse) > 1 and mean(worse) > goal:
        worse = worse[1:]
    return [*other, *worse]
