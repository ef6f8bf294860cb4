"""The choices of an OpenAI-compatible response, whatever shape a server gives them."""

from __future__ import annotations

import codecs
import json
import math
import re
from collections.abc import Iterable
from dataclasses import replace
from itertools import accumulate
from typing import Any

from methods.inference.completion import Completion

#: Below any probability that a model gives: unknown, as -9999 of a token outside the likeliest.
LOWEST = -1e6

#: A token, its log-probability, and the likeliest ones at its place.
_Row = tuple[str | None, float, list[tuple[str, float]]]

_TAGS = "think|thinking|thought|thoughts|reasoning|reason|reflection|scratchpad|seed:think"
#: How models begin and end their thoughts.
_MARKS = {
    rf"<(?P<tag>{_TAGS})\s*>": rf"</(?:{_TAGS})\s*>",
    r"\[THINK\]": r"\[/THINK\]",
    r"\u25c1think\u25b7": r"\u25c1/think\u25b7",
    r"<\|START_THINKING\|>": r"<\|END_THINKING\|>",
    r"<\|begin_of_thought\|>": r"<\|end_of_thought\|>",
    r"<unused94>(?:thought)?": r"<unused95>",
    r"(?:<\|start\|>assistant)?<\|channel\|>analysis<\|message\|>": (
        r"<\|channel\|>final<\|message\|>"
    ),
}
_THOUGHT = re.compile(
    r"\s*(?:" + "|".join(rf"{begin}(?:.*?{end}|.*\Z)" for begin, end in _MARKS.items()) + r")\s*",
    re.DOTALL | re.IGNORECASE,
)
#: Of a model whose template opens the thought before the answer: a line ends with the tag.
_CLOSED = re.compile(
    r"(?!.*<(?:think|thinking|reasoning)>).*?</(?:think|thinking|reasoning)>[ \t]*(?:\n|\Z)\s*",
    re.DOTALL | re.IGNORECASE,
)
_ENDS = re.compile(r"(?:<\|return\|>|<\|end\|>|<\|im_end\|>)\s*\Z")
_CUT = frozenset({"length", "max_tokens", "model_length", "max_length", "max_output_tokens"})
_FILTERED = frozenset({"content_filter", "content_filtered", "safety", "recitation", "blocklist"})


def read_choice(choice: dict[str, Any]) -> Completion:
    """A choice of `/chat/completions` or `/completions`.

    Content may be text, parts or null; log-probabilities an object of either endpoint, null or
    missing; thoughts in a field of their own or in tags. A refusal or a call of tools is text too,
    so that answers with them can be told apart.

    Raises:
        KeyError, TypeError, ValueError: it is no choice.
    """
    message = choice.get("message")
    reason = str(choice.get("finish_reason") or "").lower()
    rows = _rows(choice.get("logprobs"))
    if message is None:
        text, refusal, calls, thought = str(choice["text"] or ""), False, False, ""
    else:
        text = _content(message.get("content"))
        said = message.get("refusal") or _refusal(message.get("content"))
        made = message.get("tool_calls") or [
            {"function": call} for call in [message.get("function_call")] if call
        ]
        refusal, calls = bool(said), bool(made)
        if not text and refusal:
            text = str(said)
        if not text and calls:
            text = "\n".join(map(_call, made))
        thought = message.get("reasoning_content") or message.get("reasoning") or ""
    known = bool(rows) and all(token is not None for token, _, _ in rows)
    tops = [[(_kept(t), v) for t, v in top] for _, _, top in rows]
    found = Completion(
        text=_kept(_ENDS.sub("", text) if "|>" in text else text),
        logprobs=[value for _, value, _ in rows] or None,
        tokens=len(rows),
        token_texts=[_kept(token or "") for token, _, _ in rows] if known else None,
        top_logprobs=tops if any(tops) else None,
        cut=reason in _CUT,
        refused=refusal,
        filtered=reason in _FILTERED,
        called_tools=calls,
        thoughts=len(str(thought)),
    )
    found = without_thoughts(found)
    return _answer_only(found) if thought else found


def without_thoughts(completion: Completion) -> Completion:
    """An answer without the thoughts before it, its log-probabilities neither.

    Log-probabilities that cannot be told from those of the thoughts are dropped.
    """
    text, end = completion.text, 0
    while (place := _THOUGHT.match(text, end)) and place.end() > end:
        end = place.end()
    if end == 0 and "</" in text and (place := _CLOSED.match(text)):
        end = place.end()
    if end == 0:
        return completion
    return _answer_only(replace(completion, text=text[end:], thoughts=completion.thoughts + end))


def _answer_only(completion: Completion) -> Completion:
    """Only the tokens that spell the text; none where the text is not their end."""
    tokens, rest = completion.token_texts, completion.text.strip()
    start: int | None = None
    if tokens is not None and rest:
        spelled = "".join(tokens)
        at = spelled.rstrip().rfind(rest)
        if at >= 0 and at + len(rest) == len(spelled.rstrip()):
            # The token with the first letter of the answer.
            ends = accumulate(map(len, tokens))
            start = next(number for number, end in enumerate(ends) if end > at)
    if start is None:
        return replace(
            completion, logprobs=None, token_texts=None, top_logprobs=None, tokens=completion.tokens
        )
    return replace(
        completion,
        logprobs=None if completion.logprobs is None else completion.logprobs[start:],
        token_texts=None if tokens is None else tokens[start:],
        top_logprobs=None if completion.top_logprobs is None else completion.top_logprobs[start:],
    )


def _content(content: Any) -> str:
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    content = [content] if isinstance(content, dict) else content
    parts = [part if isinstance(part, dict) else {"text": part} for part in content]
    kept = [part for part in parts if part.get("type", "text") in ("text", "output_text")]
    return "".join(_text(part.get("text")) for part in kept)


def _refusal(content: Any) -> str:
    """What a part of the content says in refusal."""
    parts = content if isinstance(content, list) else []
    said = [part.get("refusal") for part in parts if isinstance(part, dict)]
    return str(next((one for one in said if one), ""))


def _text(text: Any) -> str:
    return str(text.get("value", "")) if isinstance(text, dict) else str(text or "")


def _call(call: dict[str, Any]) -> str:
    function = call.get("function") or {}
    arguments = function.get("arguments")
    shown = arguments if isinstance(arguments, str) else json.dumps(arguments)
    return f"{function.get('name', '')}({shown})"


def _rows(given: Any) -> list[_Row]:
    if not isinstance(given, dict):
        return []
    if (entries := given.get("content")) is not None:
        texts = _texts(entries)
        return [
            (text, _value(entry.get("logprob")), _alternatives(entry.get("top_logprobs")))
            for text, entry in zip(texts, entries, strict=True)
        ]
    values = given.get("token_logprobs") or []
    tokens = given.get("tokens") or [None] * len(values)
    tops = given.get("top_logprobs") or [None] * len(values)
    # A server that echoes has no log-probability for the first token.
    return [
        (token, _value(value), _alternatives(top))
        for token, value, top in zip(tokens, values, tops, strict=True)
        if not (value is None and token in (None, ""))
    ]


def _texts(entries: list[dict[str, Any]]) -> list[str | None]:
    """What each token adds to the text; a character may be spread over the bytes of several."""
    if not all(isinstance(entry.get("bytes"), list) for entry in entries):
        return [entry.get("token") for entry in entries]
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    return [decoder.decode(bytes(entry["bytes"])) for entry in entries]


def _alternatives(top: Any) -> list[tuple[str, float]]:
    if isinstance(top, dict):
        return [(token, _value(value)) for token, value in top.items()]
    pairs: Iterable[Any] = top or []
    return [(one["token"], _value(one["logprob"])) for one in pairs]


def _kept(text: str) -> str:
    """Postgres keeps no NUL."""
    return text.replace("\x00", "\ufffd")


def _value(value: Any) -> float:
    """Rounding may lift a certain token a little above 0; what is unknown is far below."""
    if value is None or math.isnan(value):
        return LOWEST
    return max(min(float(value), 0.0), LOWEST)
