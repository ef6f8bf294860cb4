"""The fields of a spec as options of `--set`, from the job type's JSON Schema."""

from __future__ import annotations

import json
import shutil
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

#: How deep objects within objects are listed.
_DEPTH = 3
_IN = " " * 6
_REFERENCES = {"datassay-input": "FILE", "datassay-model": "MODEL"}


class Option(NamedTuple):
    """A field of a spec: its path with dots, what it takes, what it means, its default as JSON."""

    path: str
    takes: str
    text: str
    default: str | None
    required: bool


def options(schema: Mapping[str, Any]) -> list[Option]:
    """Every field of a spec, those of objects within it too."""
    return list(_walk(schema, schema, "", 0))


def render(title: str, summary: str, found: list[Option], example: Any) -> str:
    """The help of `datassay submit TYPE`."""
    width = min(shutil.get_terminal_size().columns, 110)
    lines = [title, *textwrap.wrap(summary, width), "", "fields, for --set FIELD=VALUE:"]
    for option in found:
        head = f"  {option.path}={option.takes}"
        if option.required:
            head += "  (required)"
        elif option.default not in (None, "null"):
            head += f"  (default: {_short(option.default or '')})"
        lines.append(head)
        lines += textwrap.wrap(
            option.text, width, initial_indent=" " * 6, subsequent_indent=" " * 6
        )
    lines += ["", "an example of a spec, for --spec FILE:"]
    lines += textwrap.indent(json.dumps(example, indent=2, ensure_ascii=False), "  ").splitlines()
    return "\n".join(lines)


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:59] + "…"


def _walk(
    schema: Mapping[str, Any], root: Mapping[str, Any], prefix: str, depth: int
) -> Iterator[Option]:
    required = set(schema.get("required", ()))
    for name, field in (schema.get("properties") or {}).items():
        path = f"{prefix}{name}"
        kinds = [resolved(one, root) for one in variants(resolved(field, root))]
        objects = [one for one in kinds if one.get("properties")]
        text = field.get("description") or resolved(field, root).get("description", "")
        default = json.dumps(field["default"], ensure_ascii=False) if "default" in field else None
        takes = "|".join(dict.fromkeys(_takes(one, root) for one in kinds))
        yield Option(path, takes, " ".join(text.split()), default, name in required)
        if depth < _DEPTH:
            for one in objects:
                yield from _walk(one, root, f"{path}.", depth + 1)


def variants(schema: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What a field may be, but for null."""
    for key in ("anyOf", "oneOf"):
        if key in schema:
            return [one for one in schema[key] if one.get("type") != "null"]
    return [schema]


def resolved(schema: Mapping[str, Any], root: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a reference stands for; any other schema itself."""
    reference = schema.get("$ref")
    if not isinstance(reference, str):
        return schema
    found: Mapping[str, Any] = root
    for part in reference.removeprefix("#/").split("/"):
        found = found.get(part, {})
    return found


def _takes(schema: Mapping[str, Any], root: Mapping[str, Any]) -> str:
    if "enum" in schema:
        names = [str(value) for value in schema["enum"]]
        return "|".join(names) if len(names) <= 8 else f"{'|'.join(names[:6])}|… ({len(names)})"
    if "const" in schema:
        return str(schema["const"])
    if schema.get("format") in _REFERENCES:
        return _REFERENCES[schema["format"]]
    kind = schema.get("type")
    if kind == "array":
        item = resolved(schema.get("items") or {}, root)
        return f"[{_takes(item, root)}, ...]"
    if schema.get("properties") or kind == "object":
        return "{...}"
    if kind in ("number", "integer"):
        return _bounded(kind.upper(), schema)
    return {"string": "TEXT", "boolean": "true|false"}.get(str(kind), "JSON")


def _bounded(name: str, schema: Mapping[str, Any]) -> str:
    low = schema.get("minimum", schema.get("exclusiveMinimum"))
    high = schema.get("maximum", schema.get("exclusiveMaximum"))
    if low is None and high is None:
        return name
    return f"{name} {'' if low is None else f'{low:g}'}..{'' if high is None else f'{high:g}'}"
