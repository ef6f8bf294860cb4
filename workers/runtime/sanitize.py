"""What a runner says, fit for Postgres and UTF-8."""

from __future__ import annotations

import json
import re
from typing import Any, TypeVar

T = TypeVar("T")

#: As JSON writes them: NUL, and halves of surrogate pairs (whole pairs look suspicious too).
_SUSPECT = re.compile(r"\\u(?:0000|d[89a-f])")
_ODD = re.compile("[\x00\ud800-\udfff]")


def storable(value: T) -> T:
    """JSON data with U+FFFD for every NUL and every half of a surrogate pair, in keys too."""
    if _SUSPECT.search(json.dumps(value)) is None:
        return value
    cleaned: T = _cleaned(value)
    return cleaned


def _cleaned(value: Any) -> Any:
    if isinstance(value, str):
        return _ODD.sub("\ufffd", value)
    if isinstance(value, dict):
        return {_cleaned(key): _cleaned(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_cleaned(item) for item in value]
    return value
