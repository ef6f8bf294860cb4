"""Reads the golden files of hallucination scoring."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

_FOLDER = Path(__file__).parents[2] / "golden" / "hallucination"


@cache
def golden(name: str) -> dict[str, Any]:
    """A golden file as it stands."""
    loaded: dict[str, Any] = json.loads((_FOLDER / f"{name}.json").read_text())
    return loaded


def number(value: Any) -> Any:
    """Numbers of a golden file, non-finite ones included, which are strings there."""
    return np.asarray(value, dtype=np.float64)


def raised(value: Any) -> bool:
    """Whether the original raised an exception in place of this value."""
    return isinstance(value, dict) and "error" in value


def assert_same(actual: Any, expected: Any, rtol: float = 1e-9, atol: float = 1e-12) -> None:
    """Equal up to rounding; atol is for values that are zero but for rounding."""
    np.testing.assert_allclose(actual, number(expected), rtol=rtol, atol=atol)
