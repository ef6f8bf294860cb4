"""Sets of prompts, checked row by row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from methods.context import RunContext
from methods.errors import JobError
from methods.responses.schema import PromptSet, ReasoningSet, SetName
from methods.row_files import NO_OBJECT, SURROGATES, invalid_rows, rows_of

MAX_PROMPTS, MAX_CHARACTERS = 5_000, 100_000


@dataclass(frozen=True)
class PromptRow:
    """A prompt.

    Attributes:
        id: unique in its set. row: in the input, from 0. answer: of a problem.
    """

    set: SetName
    id: str
    row: int
    text: str
    answer: str | None = None


def read_prompts(given: PromptSet, name: SetName, ctx: RunContext) -> list[PromptRow]:
    """Read a set.

    Raises:
        JobError: `input_invalid` with the bad rows; `too_large`; `input_unreadable`.
    """
    answer_field = given.answer_field if isinstance(given, ReasoningSet) else None
    what = f"evaluate.{name}"
    columns = [given.prompt_field, *([answer_field] if answer_field else [])]
    rows = rows_of(ctx, given, what, columns, "Set prompt_field.")
    if len(rows) > MAX_PROMPTS:
        raise JobError("too_large", f"{what}: {len(rows):,} rows; at most {MAX_PROMPTS:,}.")
    found: list[PromptRow] = []
    bad: list[dict[str, Any]] = []
    ids: set[str] = set()
    for row, one in enumerate(rows):
        faults: list[tuple[str, str]] = []
        if not isinstance(one, dict):
            bad.append(NO_OBJECT.at(row))
            continue
        text = one.get(given.prompt_field)
        if problem := text_problem(text):
            faults.append((given.prompt_field, problem))
        answer = None
        if answer_field is not None:
            answer = as_text(one.get(answer_field))
            if not answer:
                faults.append((answer_field, "is missing or no text or number"))
        own = as_text(one.get("id"))
        own = own if own else str(row)
        if own in ids:
            faults.append(("id", f"{own[:60]!r} occurs twice"))
        ids.add(own)
        if faults:
            bad += [{"row": row, "field": name, "problem": problem} for name, problem in faults]
            continue
        found.append(PromptRow(name, own, row, str(text).translate(SURROGATES), answer))
    if bad:
        raise invalid_rows(what, bad, len(rows))
    if not found:
        raise JobError("input_invalid", f"{what}: there are no prompts in it.")
    return found


def text_problem(text: Any) -> str | None:
    """Why a value is no text to work with."""
    if not isinstance(text, str):
        return "is missing" if text is None else "is not a string"
    if not text.strip():
        return "is empty"
    if len(text) > MAX_CHARACTERS:
        return f"has {len(text):,} characters; at most {MAX_CHARACTERS:,} are taken"
    return None


def as_text(value: Any) -> str | None:
    """A text or number as text; None of anything else."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return None
    return str(value).translate(SURROGATES)


def normalised(text: str) -> str:
    """What makes two prompts the same: case and white space do not count."""
    return " ".join(text.casefold().split())
