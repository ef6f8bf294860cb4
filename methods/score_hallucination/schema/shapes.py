"""Answers in the shapes that people have them in, as `Answer` takes them."""

from __future__ import annotations

from typing import Any

from methods.inference.choices import LOWEST, read_choice
from methods.inference.completion import Completion
from methods.score_hallucination.schema.spelling import spelled


def in_list(given: Any) -> Any:
    """A text alone is a list of one; numbers are texts, what is missing is left out."""
    if isinstance(given, str | int | float) and not isinstance(given, bool):
        given = [given]
    if not isinstance(given, list):
        return given
    return [as_text(one) for one in given if one is not None]


def as_text(given: Any) -> Any:
    """A number as the text that it was."""
    return str(given) if isinstance(given, int | float) and not isinstance(given, bool) else given


def read_label(given: Any) -> Any:
    """True and false, and digits out of a table."""
    if isinstance(given, str):
        words = given.strip().casefold()
        known = {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "false": 0, "true": 1}
        return None if words in ("", "nan", "none", "null") else known.get(words, given)
    if isinstance(given, bool) or (isinstance(given, float) and given in (0.0, 1.0)):
        return int(given)
    return given


def read_answers(given: Any) -> Any:
    """Texts, answers, choices, messages, or responses of OpenAI's API with their choices."""
    if isinstance(given, dict | int | float) or (isinstance(given, str) and given):
        given = [given]
    if not isinstance(given, list):
        return given
    found: list[Any] = []
    for one in given:
        choices = one.get("choices") if isinstance(one, dict) else None
        if one is None:
            raise ValueError(f"number {len(found)} is null; leave out what is no answer")
        found += map(read_answer, choices) if isinstance(choices, list) else [read_answer(one)]
    return found


def read_answer(given: Any) -> Any:
    """One of them; of a response with several choices the first."""
    if isinstance(given, str | int | float) and not isinstance(given, bool):
        return {"text": str(given)}
    if not isinstance(given, dict):
        return given
    given = _inside(given)
    choices = given.get("choices")
    if isinstance(choices, list) and choices:
        given = choices[0]
        if not isinstance(given, dict):
            return given
    if ("role" in given or "content" in given) and "text" not in given:
        given = {"message": given}
    if not isinstance(given.get("message"), dict) and not ("text" in given and "logprobs" in given):
        # Of a completion without log-probabilities the index says nothing.
        return {name: value for name, value in given.items() if name != "index"}
    if isinstance(given.get("logprobs"), list):
        return _of_list(given)
    try:
        return as_answer(read_choice(given))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"is no choice of OpenAI's API: {error!r}") from error


def _inside(given: dict[str, Any]) -> dict[str, Any]:
    """What others put their answer into: Ollama, Hugging Face, batches, OpenAI's Responses."""
    if isinstance(given.get("response"), dict):
        given = given["response"]
    if isinstance(given.get("body"), dict):
        given = given["body"]
    if isinstance(given.get("output"), list):
        messages = [one for one in given["output"] if isinstance(one, dict)]
        given = next((one for one in messages if one.get("type") == "message"), given)
    for name in ("response", "generated_text", "output_text"):
        if isinstance(given.get(name), str) and "text" not in given:
            return {"text": given[name]}
    return given


def _of_list(given: dict[str, Any]) -> dict[str, Any]:
    """A text with a plain list of log-probabilities, or of tokens with theirs."""
    entries = given["logprobs"]
    rest = {name: value for name, value in given.items() if name not in ("logprobs", "index")}
    if all(isinstance(entry, dict) for entry in entries):
        values = [entry.get("logprob") for entry in entries]
        tokens = [entry.get("token") for entry in entries]
        known = {"tokens": tokens} if all(isinstance(token, str) for token in tokens) else {}
        return rest | {"token_logprobs": values} | known
    return rest | {"token_logprobs": entries}


def as_logprob(given: Any) -> Any:
    """A log-probability; null for what is below any that a model gives, or no number."""
    if isinstance(given, float) and not given >= LOWEST:
        return None
    return given


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
