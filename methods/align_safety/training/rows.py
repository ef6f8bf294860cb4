"""Rows of a training: refusals and harmless ones, as turns and a completion."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from methods.align_safety.training.settings import BenignMix, PromptTemplate, RefusalRows
from methods.context import RunContext
from methods.errors import JobError
from methods.responses.reading.prompts import normalised
from methods.results import counted
from methods.row_files import NO_OBJECT, SURROGATES, RowError, invalid_rows, rows_of
from methods.seeds import derived_seed
from methods.typing import IntArray

MAX_ROWS = 100_000
_ANSWER = re.compile(r"answer:", re.IGNORECASE)
_ROLES = {"human": "user", "gpt": "assistant", "bot": "assistant", "model": "assistant"}


@dataclass(frozen=True)
class TrainingRow:
    """A row.

    Attributes:
        row: in its input, from 0. turns: all before the completion, the last of them the user's.
        benign: from the mix.
    """

    row: int
    turns: list[dict[str, str]]
    completion: str
    benign: bool

    @property
    def prompt(self) -> str:
        """The last thing the user said."""
        return self.turns[-1]["content"]


@dataclass
class TrainingSet:
    """All rows, refusals first.

    Attributes:
        mixed: harmless rows among them. warnings: what was left out.
    """

    rows: list[TrainingRow]
    mixed: int
    warnings: list[str]

    def thinking(self, template: PromptTemplate, think: str | None) -> list[TrainingRow]:
        """The rows, with a thought before every refusal that has none."""
        tags = template.think_tags
        if think is None or tags is None:
            return self.rows
        return [
            one
            if one.benign or tags.close in one.completion
            else replace(one, completion=f"{tags.open}{think}{tags.close}{one.completion}")
            for one in self.rows
        ]

    def prompts(self) -> set[str]:
        """All prompts, normalised."""
        return {normalised(one.prompt) for one in self.rows}


def read_training(
    train: RefusalRows, mix: BenignMix | None, seed: int, ctx: RunContext
) -> TrainingSet:
    """Read and mix them; the same request gives the same rows, wherever it is read.

    Raises:
        JobError: `input_invalid` with the bad rows; `too_large`; `input_unreadable`.
    """
    rows = _read(train, "train", False, ctx)
    found = TrainingSet(rows, 0, [])
    if mix is None:
        return found
    benign = _read(mix, "benign_mix", True, ctx)
    wanted = max(1, round(len(rows) * mix.ratio))
    if wanted > len(benign):
        found.warnings.append(
            f"benign_mix has {counted(len(benign), 'row')} where a ratio of {mix.ratio:g} asks for "
            f"{wanted:,}: all were taken."
        )
    rng = np.random.default_rng(derived_seed(seed, "mix"))
    order: IntArray = rng.permutation(len(benign))
    found.rows = [*rows, *(benign[k] for k in sorted(order[:wanted].tolist()))]
    found.mixed = len(found.rows) - len(rows)
    return found


def _read(given: RefusalRows, what: str, benign: bool, ctx: RunContext) -> list[TrainingRow]:
    rows = rows_of(ctx, given, what, (), "Set format.")
    if len(rows) > MAX_ROWS:
        raise JobError("too_large", f"{what}: {len(rows):,} rows; at most {MAX_ROWS:,}.")
    found: list[TrainingRow] = []
    bad: list[dict[str, Any]] = []
    readers = {
        "prompt-completion": _of_pair,
        "messages": _of_messages,
        "question-answer": _of_question,
    }
    for row, one in enumerate(rows):
        if not isinstance(one, dict):
            bad.append(NO_OBJECT.at(row))
            continue
        try:
            turns, completion = readers[given.format](one)
        except RowError as fault:
            bad.append(fault.at(row))
            continue
        found.append(TrainingRow(row, turns, completion, benign))
    if bad:
        raise invalid_rows(what, bad, len(rows))
    if not found:
        raise JobError("input_invalid", f"{what}: there are no rows in it.")
    return found


def _text(one: dict[str, Any], *names: str) -> str:
    name = next((name for name in names if one.get(name) not in (None, "")), names[0])
    value = one.get(name)
    if not isinstance(value, str):
        raise RowError(name, "is missing" if value is None else "is not a string")
    if not value.strip():
        raise RowError(name, "is empty")
    return value.translate(SURROGATES)


def _user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def _of_pair(one: dict[str, Any]) -> tuple[list[dict[str, str]], str]:
    prompt = _text(one, "prompt", "instruction")
    if "prompt" not in one and isinstance(one.get("input"), str) and one["input"].strip():
        prompt = f"{prompt}\n\n{one['input'].translate(SURROGATES)}"
    return _user(prompt), _text(one, "completion", "output", "response")


def _of_question(one: dict[str, Any]) -> tuple[list[dict[str, str]], str]:
    """What follows the first `Answer:` is the completion, as the published code takes it."""
    if isinstance(one.get("question"), str) and isinstance(one.get("answer"), str):
        question, answer = _text(one, "question"), _text(one, "answer")
        parts = _ANSWER.split(answer, maxsplit=1)
        answer = parts[1] if len(parts) == 2 else answer
    else:
        parts = _ANSWER.split(_text(one, "text", "completion"), maxsplit=1)
        if len(parts) < 2:
            raise RowError("text", 'has no "Answer:"')
        before, answer = parts
        question = re.sub(r"^\s*question:", "", before, flags=re.IGNORECASE)
        if isinstance(one.get("prompt"), str):
            question = one["prompt"]
    if not answer.strip():
        raise RowError("answer", 'is empty after "Answer:"')
    if not question.strip():
        raise RowError("question", "is empty")
    return _user(question.strip()), answer.strip()


def _of_messages(one: dict[str, Any]) -> tuple[list[dict[str, str]], str]:
    name = "messages" if "messages" in one else "conversations"
    given = one.get(name)
    if not isinstance(given, list) or not given:
        raise RowError("messages", "is missing or no list of turns")
    turns = []
    for turn in given:
        if not isinstance(turn, dict):
            raise RowError(name, "has a turn that is no object")
        role = str(turn.get("role", turn.get("from", "")))
        text = turn.get("content", turn.get("value"))
        if not isinstance(text, str):
            raise RowError(name, "has a turn without text")
        turns.append({"role": _ROLES.get(role, role), "content": text.translate(SURROGATES)})
    *before, last = turns
    if last["role"] != "assistant" or not last["content"].strip():
        raise RowError(name, "does not end with what the assistant says")
    if not before or before[-1]["role"] != "user":
        raise RowError(name, "has no user's turn before the assistant's last one")
    return before, last["content"]
