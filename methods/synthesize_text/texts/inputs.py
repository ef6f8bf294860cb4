"""Real texts with their labels, checked row by row and split by text."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import numpy as np

from methods.context import RunContext
from methods.errors import JobError
from methods.results import counted
from methods.row_files import SURROGATES, invalid_rows, read_rows
from methods.synthesize_text.child_jobs import LabelledTexts
from methods.synthesize_text.seeds import derived_seed
from methods.synthesize_text.texts.filters import normalised
from methods.typing import IntArray

MAX_TEXTS, MAX_CHARACTERS = 100_000, 20_000
#: Texts of a label that a target is the mean of at most.
MOST_USED = 2_000
_FEWEST = 5


@dataclass
class SplitTexts:
    """The different real texts of each label in two halves.

    Attributes:
        used, held: per label texts; `used_rows`, `held_rows`: their rows in the input, from 0.
        warnings: what was left out. seed: of the split.
    """

    used: list[list[str]]
    held: list[list[str]]
    used_rows: list[list[int]]
    held_rows: list[list[int]]
    warnings: list[str] = field(default_factory=list)
    seed: int = 0

    def aimed(self, label: int) -> tuple[list[str], list[int]]:
        """The texts of a label that the target is the mean of, and their rows: all, or so many as
        it takes, drawn by the seed."""
        texts, rows = self.used[label], self.used_rows[label]
        if len(texts) <= MOST_USED:
            return texts, rows
        rng = np.random.default_rng(derived_seed(self.seed, "used", label))
        places: IntArray = np.sort(rng.choice(len(texts), MOST_USED, replace=False))
        return [texts[k] for k in places], [rows[k] for k in places]

    def digest(self, label: int) -> str:
        """SHA-256 over the used texts of a label, whatever their order."""
        texts = sorted(self.used[label])
        return sha256(json.dumps(texts).encode()).hexdigest()


def split_texts(texts: LabelledTexts, ctx: RunContext) -> SplitTexts:
    """Read and split them. The same request gives the same split, wherever it is read.

    Texts that are the same but for case and white space count once, at their first row, so that no
    text is in both halves.

    Raises:
        JobError: `input_invalid` with the bad rows, or where a label has too few texts;
            `too_large`; `input_unreadable`.
    """
    rows = _rows(texts, ctx)
    if len(rows) > MAX_TEXTS:
        raise JobError("too_large", f"{len(rows):,} rows; at most {MAX_TEXTS:,} are taken.")
    numbers = {name: number for number, name in enumerate(texts.labels)}
    bad: list[dict[str, Any]] = []
    found: list[list[tuple[int, str]]] = [[] for _ in numbers]
    first: dict[str, int] = {}
    repeated = contradicted = 0
    for row, given in enumerate(rows):
        problems = _problems(row, given, texts, numbers)
        if problems:
            bad += problems
            continue
        text = given[texts.text_field].strip().translate(SURROGATES)
        label, key = numbers[_name(given[texts.label_field])], normalised(text)
        if key in first and texts.distinct:
            repeated += 1
            contradicted += first[key] != label
            continue
        first.setdefault(key, label)
        found[label].append((row, text))
    if bad:
        raise invalid_rows("texts", bad, len(rows))
    split = SplitTexts([], [], [], [], seed=texts.seed)
    if repeated:
        split.warnings.append(
            f"{counted(repeated, 'real text')} repeat an earlier one and were left out"
            + (f", {contradicted:,} of them with another label." if contradicted else ".")
        )
    for label, own in enumerate(found):
        order: IntArray = np.random.default_rng([texts.seed, 1, label]).permutation(len(own))
        held = int(len(own) * texts.holdout)
        if len(own) - held < _FEWEST:
            raise JobError(
                "input_invalid",
                f"The label {texts.labels[label]!r} has {counted(len(own), 'different text')}, of "
                f"which {held} are held out; at least {_FEWEST} must be left. Bring more texts or "
                "lower holdout.",
                details={"label": texts.labels[label], "texts": len(own), "held_out": held},
            )
        for places, target, target_rows in (
            (sorted(order[held:].tolist()), split.used, split.used_rows),
            (sorted(order[:held].tolist()), split.held, split.held_rows),
        ):
            target.append([own[place][1] for place in places])
            target_rows.append([own[place][0] for place in places])
    return split


def _rows(texts: LabelledTexts, ctx: RunContext) -> list[Any]:
    if texts.rows is not None:
        return list(texts.rows)
    assert texts.input is not None, "the spec has rows or an input"
    fields = (texts.text_field, texts.label_field)
    return read_rows(ctx, texts.input, "texts", fields, "Set text_field and label_field.")


def _name(value: Any) -> str:
    """A label as a name; 1 and "1" are the same."""
    return str(value) if isinstance(value, (str, int)) and not isinstance(value, bool) else ""


def _problems(
    row: int, given: Any, texts: LabelledTexts, numbers: dict[str, int]
) -> list[dict[str, Any]]:
    if not isinstance(given, dict):
        return [{"row": row, "field": "", "problem": "is not an object"}]
    found = []
    text = given.get(texts.text_field)
    if not isinstance(text, str):
        problem = "is missing" if text is None else "is not a string"
        found.append({"row": row, "field": texts.text_field, "problem": problem})
    elif not text.strip():
        found.append({"row": row, "field": texts.text_field, "problem": "is empty"})
    elif len(text) > MAX_CHARACTERS:
        problem = f"has {len(text):,} characters; at most {MAX_CHARACTERS:,} are taken"
        found.append({"row": row, "field": texts.text_field, "problem": problem})
    label = given.get(texts.label_field)
    if _name(label) not in numbers:
        problem = "is missing" if label is None else f"{str(label)[:60]!r} is none of the labels"
        found.append({"row": row, "field": texts.label_field, "problem": problem})
    return found
