"""What is wrong with a spec, in words that name the cure."""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Annotated, Any

from pydantic import BaseModel
from typing_extensions import TypeAliasType

_MOST_LISTED = 30


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'scorers'?` where a known name is near, else nothing."""
    near = get_close_matches(name[:64], list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def pointer(location: Sequence[int | str]) -> str:
    """A JSON pointer to where a fault lies."""
    return "".join(f"/{str(p).replace('~', '~0').replace('/', '~1')}" for p in location)


def explain(fault: Mapping[str, Any], model: Any = None) -> str:
    """The message of a fault that pydantic found.

    Args:
        fault: an item of `ValidationError.errors()`.
        model: what was validated, and what the fault's `loc` starts at; for the names of fields.
    """
    message = str(fault["msg"]).removeprefix("Value error, ").removeprefix("Assertion failed, ")
    context = fault.get("ctx", {})
    match fault["type"]:
        case "extra_forbidden":
            name = str(fault["loc"][-1])
            known = sorted(set(_fields(model, fault["loc"][:-1])))
            cure = did_you_mean(name, known)
            if not cure and 0 < len(known) <= _MOST_LISTED:
                cure = f"; known: {', '.join(known)}"
            return f"There is no field {name[:64]!r} here{cure}"
        case "literal_error" | "enum" if isinstance(fault["input"], str):
            return message + did_you_mean(fault["input"], _quoted(context["expected"]))
        case "union_tag_invalid":
            return message + did_you_mean(context["tag"], _quoted(context["expected_tags"]))
    return message


def _quoted(names: str) -> list[str]:
    return re.findall(r"'([^']*)'", names)


def _fields(model: Any, location: Sequence[int | str]) -> Iterator[str]:
    """Names of the fields of whatever may stand at a location."""
    reached = list(_alternatives(model))
    for part in location:
        # What leads nowhere is the tag of a union's member, and stands for the member itself.
        reached = [inner for kind in reached for inner in _inside(kind, part)] or reached
    for kind in reached:
        if _is_model(kind):
            yield from (field.alias or name for name, field in kind.model_fields.items())


def _inside(kind: Any, part: int | str) -> Iterator[Any]:
    if _is_model(kind):
        for name, field in kind.model_fields.items():
            if part in (name, field.alias):
                yield from _alternatives(field.annotation)
        return
    inner = [each for each in typing.get_args(kind) if each is not ...]
    container = typing.get_origin(kind)
    wanted = Mapping if isinstance(part, str) else Sequence
    if inner and isinstance(container, type) and issubclass(container, wanted):
        yield from _alternatives(inner[-1])


def _alternatives(kind: Any) -> Iterator[Any]:
    if isinstance(kind, TypeAliasType):
        yield from _alternatives(kind.__value__)
    elif typing.get_origin(kind) is Annotated:
        yield from _alternatives(typing.get_args(kind)[0])
    elif typing.get_origin(kind) in (typing.Union, types.UnionType):
        for each in typing.get_args(kind):
            yield from _alternatives(each)
    else:
        yield kind


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)
