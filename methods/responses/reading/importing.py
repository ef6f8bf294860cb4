"""Responses that are there already: rows of our own, lm-eval's samples, Inspect's logs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any, Literal, get_args

from methods.errors import JobError
from methods.responses.reading.prompts import as_text, normalised
from methods.responses.schema import SetName
from methods.results import counted
from methods.row_files import NO_OBJECT, SURROGATES, RowError, invalid_rows, parse_rows

Format = Literal["rows", "lm-eval", "inspect"]
MAX_RESPONSES = 200_000
_SETS = get_args(SetName)
#: A sample without a number, of a prompt without an id: the next one of that prompt.
_NEXT = -1
_CURE = "Set format, or bring JSON lines with `set`, `prompt` and `response`."


@dataclass(frozen=True)
class Given:
    """A response as a file has it.

    Attributes:
        answer: the right answer of a problem. truncated, tokens: None: the file does not say.
    """

    row: int
    set: SetName
    id: str
    sample: int
    prompt: str
    response: str
    answer: str | None = None
    truncated: bool | None = None
    tokens: int | None = None


@dataclass
class Imported:
    """All responses of a file, its format, and what was left out or guessed."""

    format: Format
    responses: list[Given]
    warnings: list[str] = field(default_factory=list)


def import_responses(content: str | Sequence[Any], what: str, default: SetName | None) -> Imported:
    """Read responses; the format is told by what is there.

    Args:
        content: the text of a file, or rows.
        what: names it in messages.
        default: the set of rows that name none.

    Raises:
        JobError: `input_invalid` with the bad rows; `too_large`.
    """
    kind, rows = _recognised(content, what)
    if len(rows) > MAX_RESPONSES:
        raise JobError("too_large", f"{what}: {len(rows):,} rows; at most {MAX_RESPONSES:,}.")
    reader = {"rows": _of_rows, "lm-eval": _of_lm_eval, "inspect": _of_inspect}[kind]
    faults: list[dict[str, Any]] = []
    found = Imported(kind, [])
    seen: dict[tuple[SetName, str, int], Given] = {}
    counts: Counter[tuple[SetName, str]] = Counter()
    repeated = failed = 0
    for row, one in enumerate(rows):
        if not isinstance(one, dict):
            faults.append(NO_OBJECT.at(row))
            continue
        try:
            given = list(reader(row, one, default))
        except _FailedError:
            failed += 1
            continue
        except RowError as fault:
            faults.append(fault.at(row))
            continue
        for drawn in given:
            each = drawn
            if each.sample == _NEXT:
                counts[each.set, each.id] += 1
                each = replace(each, sample=counts[each.set, each.id] - 1)
            place = (each.set, each.id, each.sample)
            if (first := seen.setdefault(place, each)) is each:
                found.responses.append(each)
            elif kind == "lm-eval" and first.response == each.response:
                # One line a filter of the same response.
                repeated += 1
            else:
                problem = f"{each.id[:60]!r} (sample {each.sample}) occurs twice in its set"
                faults.append({"row": row, "field": "id", "problem": problem})
    if faults:
        raise invalid_rows(what, faults, len(rows))
    if not found.responses:
        raise JobError("input_invalid", f"{what}: there are no responses in it.")
    if failed:
        found.warnings.append(
            f"{what}: {counted(failed, 'sample')} of Inspect have no response, for they failed; "
            "they are left out."
        )
    if repeated:
        found.warnings.append(
            f"{what}: {counted(repeated, 'line')} of lm-eval repeat a response under another "
            "filter and count once."
        )
    return found


class _FailedError(Exception):
    """A sample that has no response, for its run failed."""


def _recognised(content: str | Sequence[Any], what: str) -> tuple[Format, list[Any]]:
    if isinstance(content, str):
        log = _one_object(content)
        if log is not None and isinstance(log.get("samples"), list):
            return "inspect", log["samples"]
        rows = parse_rows(content, what, ("prompt", "response"), _CURE)
    else:
        rows = list(content)
    kinds = Counter("resps" in one for one in rows if isinstance(one, dict))
    return ("lm-eval" if kinds[True] > kinds[False] else "rows"), rows


def _one_object(content: str) -> dict[str, Any] | None:
    """The file as one JSON object, as Inspect exports it."""
    if not content.lstrip().startswith("{"):
        return None
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _text(one: dict[str, Any], name: str) -> str:
    value = one.get(name)
    if not isinstance(value, str):
        raise RowError(name, "is missing" if value is None else "is not a string")
    return value.translate(SURROGATES)


def _set(one: dict[str, Any], default: SetName | None) -> SetName:
    name = one.get("set") or default
    if name is None:
        raise RowError("set", f"is missing; give it here or for the arm: {', '.join(_SETS)}")
    if name not in _SETS:
        raise RowError("set", f"is none of {', '.join(_SETS)}")
    return name


def _whole(value: Any, name: str) -> int | None:
    """A whole number from 0, also as a table writes it where cells are missing: 512.0."""
    if value is None or value == "":
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = -1.0
    if isinstance(value, bool) or not 0 <= number < 1e15 or number != int(number):
        # The value is not quoted: in a shifted row it may be any text.
        raise RowError(name, "is not a whole number from 0")
    return int(number)


def _flag(value: Any, name: str) -> bool | None:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in ("true", "false", ""):
        return None if not value else value.lower() == "true"
    raise RowError(name, "is neither true nor false")


def _of_rows(row: int, one: dict[str, Any], default: SetName | None) -> Iterator[Given]:
    of = _set(one, default)
    answer = as_text(one.get("answer"))
    if of == "reasoning" and not answer:
        raise RowError("answer", "is missing; a problem needs its right answer")
    prompt, own = _text(one, "prompt"), as_text(one.get("id"))
    sample = _whole(one.get("sample"), "sample")
    yield Given(
        row=row,
        set=of,
        # Without an id a prompt is itself, wherever it stands in its file.
        id=own or f"prompt-{sha256(normalised(prompt).encode()).hexdigest()[:12]}",
        sample=_NEXT if sample is None and not own else sample or 0,
        prompt=prompt,
        response=_text(one, "response"),
        answer=answer,
        truncated=_flag(one.get("truncated"), "truncated"),
        tokens=_whole(one.get("tokens"), "tokens"),
    )


def _of_lm_eval(row: int, one: dict[str, Any], default: SetName | None) -> Iterator[Given]:
    """A line of `samples_*.jsonl`: `resps` has one list a request, of one text a repeat."""
    drawn = one.get("resps")
    if isinstance(drawn, list) and len(drawn) == 1 and isinstance(drawn[0], list):
        # One request; its list has a text a repeat, of log-likelihoods a pair.
        drawn = drawn[0]
    if not isinstance(drawn, list) or not all(isinstance(text, str) for text in drawn):
        raise RowError("resps", "has no texts; only tasks that generate have responses")
    of = _set(one, default or "reasoning")
    answer = as_text(one.get("target"))
    if of == "reasoning" and not answer:
        raise RowError("target", "is missing or no text or number")
    own = as_text(one.get("doc_id"))
    for sample, text in enumerate(drawn):
        yield Given(
            row=row,
            set=of,
            id=own if own else str(row),
            sample=sample,
            prompt=_lm_eval_prompt(one),
            response=text.translate(SURROGATES),
            answer=answer,
        )


def _lm_eval_prompt(one: dict[str, Any]) -> str:
    value: Any = one.get("arguments")
    # {"gen_args_0": {"arg_0": prompt, ...}}, or of older versions [[prompt, {...}]].
    while isinstance(value, (dict, list)) and value:
        value = next(iter(value.values())) if isinstance(value, dict) else value[0]
    return value.translate(SURROGATES) if isinstance(value, str) else ""


def _of_inspect(row: int, one: dict[str, Any], default: SetName | None) -> Iterator[Given]:
    """A sample of Inspect's log as JSON."""
    output = one.get("output")
    choices = output.get("choices") if isinstance(output, dict) else None
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise _FailedError
    metadata = one.get("metadata")
    named = metadata if isinstance(metadata, dict) and metadata.get("set") in _SETS else {}
    of = _set(named, default)
    target = one.get("target")
    answer = as_text(target[0] if isinstance(target, list) and target else target)
    if of == "reasoning" and not answer:
        raise RowError("target", "is missing or no text or number")
    message = choices[0].get("message")
    usage = output.get("usage") if isinstance(output, dict) else None
    tokens = usage.get("output_tokens") if isinstance(usage, dict) else None
    epoch = _whole(one.get("epoch"), "epoch") or 1
    yield Given(
        row=row,
        set=of,
        id=as_text(one.get("id")) or str(row),
        sample=epoch - 1,
        prompt=_inspect_prompt(one.get("input")),
        response=_inspect_text(message.get("content") if isinstance(message, dict) else None),
        answer=answer,
        truncated=choices[0].get("stop_reason") in ("max_tokens", "model_length"),
        tokens=tokens if isinstance(tokens, int) else None,
    )


def _inspect_prompt(value: Any) -> str:
    if isinstance(value, str):
        return value.translate(SURROGATES)
    turns = [turn for turn in value if isinstance(turn, dict)] if isinstance(value, list) else []
    users = [turn for turn in turns if turn.get("role") == "user"]
    return _inspect_text(users[-1].get("content")) if users else ""


def _inspect_text(content: Any) -> str:
    """Text of a message; reasoning comes back between the tags that other files have."""
    if isinstance(content, str):
        return content.translate(SURROGATES)
    pieces = []
    for part in content if isinstance(content, list) else []:
        if isinstance(part, dict) and isinstance(part.get("reasoning"), str):
            pieces.append(f"<think>{part['reasoning']}</think>")
        elif isinstance(part, dict) and isinstance(part.get("text"), str):
            pieces.append(part["text"])
    if not pieces:
        raise RowError("output", "has no text")
    return "".join(pieces).translate(SURROGATES)
