"""Answers in the shapes that people have them in, as `Answer` takes them."""

from __future__ import annotations

from typing import Any

from methods.inference.choices import read_choice
from methods.inference.completion import Completion
from methods.score_hallucination.schema.spelling import spelled


def in_list(given: Any) -> Any:
    """A text alone is a list of one."""
    return [given] if isinstance(given, str) else given


def read_label(given: Any) -> Any:
    """True and false, and digits out of a table."""
    if isinstance(given, bool):
        return int(given)
    if isinstance(given, float) and given in (0.0, 1.0):
        return int(given)
    return int(given) if given in ("0", "1") else given


def read_answers(given: Any) -> Any:
    """Texts, answers, choices, messages, or responses of OpenAI's API with their choices."""
    if isinstance(given, dict) or (isinstance(given, str) and given):
        given = [given]
    if not isinstance(given, list):
        return given
    found: list[Any] = []
    for one in given:
        choices = one.get("choices") if isinstance(one, dict) else None
        found += map(read_answer, choices) if isinstance(choices, list) else [read_answer(one)]
    return found


def read_answer(given: Any) -> Any:
    """One of them; of a response with several choices the first."""
    if isinstance(given, str):
        return {"text": given}
    if not isinstance(given, dict):
        return given
    choices = given.get("choices")
    if isinstance(choices, list) and choices:
        given = choices[0]
        if not isinstance(given, dict):
            return given
    if "role" in given and "text" not in given:
        given = {"message": given}
    if not isinstance(given.get("message"), dict) and not ("text" in given and "logprobs" in given):
        # Of a completion without log-probabilities the index says nothing.
        return {name: value for name, value in given.items() if name != "index"}
    try:
        return as_answer(read_choice(given))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"is no choice of OpenAI's API: {error!r}") from error


def as_answer(completion: Completion) -> dict[str, Any]:
    """What is kept of a completion."""
    top = completion.top_logprobs
    reason = (
        "length"
        if completion.cut
        else "content_filter"
        if completion.filtered
        else "tool_calls"
        if completion.called_tools
        else None
    )
    found: dict[str, Any] = {
        "text": completion.text,
        "token_logprobs": completion.logprobs,
        "tokens": completion.token_texts,
        "top_logprobs": None if top is None else [[value for _, value in place] for place in top],
        "finish_reason": reason,
        "refusal": completion.refused,
        "thoughts": completion.thoughts,
    }
    tokens = completion.token_texts
    if tokens is not None:
        # A stop string may follow, or a token that ends the answer.
        found["tokens"] = spelled(completion.text, tokens, more=True)
    return {name: value for name, value in found.items() if value} | {"text": completion.text}
