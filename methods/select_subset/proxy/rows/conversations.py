"""Rows of any known layout as turns of text and images."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

_ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "model": "assistant",
    "system": "system",
    "developer": "system",
    "tool": "user",
    "function": "user",
    "observation": "user",
    "function_call": "assistant",
}
#: Fields of a question and of its answer.
_PAIRS = (
    *(("instruction", "output"), ("instruction", "response"), ("prompt", "response")),
    *(("question", "answer"), ("query", "response")),
)
_PLACE = re.compile(r"<image>\n?|\n?<image>")

#: Text, or None where an image stands.
Part = str | None


@dataclass(frozen=True)
class Turn:
    """Who speaks (`user`, `assistant`, `system`; `text` for a row that is one text to learn), and
    what: texts and images in order."""

    role: str
    parts: tuple[Part, ...]

    @property
    def text(self) -> str:
        return "".join(part for part in self.parts if part is not None)

    def message(self, parts: bool = True) -> dict[str, Any]:
        """The turn as chat templates of transformers expect it: those of models with images take
        a list of parts."""
        if not parts:
            return {"role": self.role, "content": self.text}
        content = [
            {"type": "image"} if part is None else {"type": "text", "text": part}
            for part in self.parts
        ]
        return {"role": self.role, "content": content}


class UnusableRowError(ValueError):
    """A row that cannot be trained on; `field` says where."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(problem)
        self.field = field


def turns_of(row: dict[str, Any], images: int) -> list[Turn]:
    """The turns of a row: LLaVA, ShareGPT, messages, Alpaca, prompt and completion, or one text.

    `<image>` in a text, or a part of type `image`, is where an image stands; images that no text
    mentions come before the first turn of the user.

    Args:
        images: how many the row has.

    Raises:
        UnusableRowError: no turns, unknown speakers, or no answer to learn from.
    """
    field, given = _given(row)
    turns = [_turn(turn, f"{field}/{n}") for n, turn in enumerate(given)]
    if field == "text":
        turns = [Turn("text", turns[0].parts)]
        if turns[0].text.strip() and not images:
            return turns
    if not any(turn.role == "assistant" and turn.text.strip() for turn in turns):
        raise UnusableRowError(field, "has no answer to learn from")
    placed = sum(part is None for turn in turns for part in turn.parts)
    if placed > images:
        raise UnusableRowError(field, f"has {placed} places for images but {images} images")
    if placed < images:
        first = next((n for n, turn in enumerate(turns) if turn.role == "user"), None)
        if first is None:
            raise UnusableRowError(field, "has no turn of a user for its images")
        more = (None,) * (images - placed)
        turns[first] = Turn("user", more + turns[first].parts)
    return turns


def _given(row: dict[str, Any]) -> tuple[str, list[Any]]:
    """The field with the conversation, and its turns."""
    for field in ("conversations", "messages"):
        if field in row:
            return field, row[field]
    if "prompt" in row and "completion" in row:
        # Either is a text or, as trl has it, a list of messages.
        sides = ((row["prompt"], "user"), (row["completion"], "assistant"))
        turns: list[Any] = []
        for value, role in sides:
            turns += value if isinstance(value, list) else [{"role": role, "content": value}]
        return "completion", turns
    for asked, answer in _PAIRS:
        if asked in row and answer in row:
            # Alpaca has what the instruction is about in a field of its own.
            prompt = [row[asked], row.get("input")]
            text = "\n\n".join(one for one in prompt if isinstance(one, str) and one)
            turns = [
                {"role": "user", "content": text},
                {"role": "assistant", "content": row[answer]},
            ]
            if row.get("system"):
                turns.insert(0, {"role": "system", "content": row["system"]})
            return answer, turns
    if isinstance(row.get("text"), str):
        return "text", [{"role": "assistant", "content": row["text"]}]
    raise UnusableRowError("conversations", "is missing")


def _turn(turn: Any, field: str) -> Turn:
    if not isinstance(turn, dict):
        raise UnusableRowError(field, "is not an object")
    speaker = turn.get("from", turn.get("role"))
    role = _ROLES.get(speaker) if isinstance(speaker, str) else None
    if role is None:
        raise UnusableRowError(field, f"has the unknown speaker {str(speaker)[:40]!r}")
    content = turn.get("value", turn.get("content"))
    if content is None and (calls := turn.get("tool_calls") or turn.get("function_call")):
        content = json.dumps(calls, ensure_ascii=False)
    if content is None and role == "system":
        content = ""
    pieces = content if isinstance(content, list) else [content]
    parts: list[Part] = []
    for piece in pieces:
        parts += _parts(piece, field)
    return Turn(role, tuple(parts))


def _parts(piece: Any, field: str) -> list[Part]:
    if isinstance(piece, dict):
        if piece.get("type") in ("image", "image_url"):
            return [None]
        piece = piece.get("text")
    if not isinstance(piece, str):
        raise UnusableRowError(field, "has a part that is neither text nor an image")
    texts = _PLACE.split(piece)
    found: list[Part] = []
    for number, text in enumerate(texts):
        if number:
            found.append(None)
        if text:
            found.append(text)
    return found
