"""Parts of the items by a field of their metadata."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from methods.score_hallucination.schema.items import Item
from methods.typing import BoolArray

#: Values of a field that have figures of their own; the rarer ones are left to the whole.
MOST_VALUES = 20
_SHOWN = 64


@dataclass(frozen=True)
class Slice:
    """The items with one value of a field: (N,) `rows`."""

    field: str
    value: str
    rows: BoolArray


class Slices:
    """Collects the values of the fields, item by item.

    Args:
        fields: as `metadata.kind`; dots go into objects.
    """

    def __init__(self, fields: Sequence[str]) -> None:
        self._values: dict[str, list[str | None]] = {field: [] for field in fields}

    def add(self, item: Item) -> None:
        """Note the next item."""
        for field, values in self._values.items():
            values.append(_value(item.metadata, field))

    def __iter__(self) -> Iterator[Slice]:
        for field, values in self._values.items():
            known = Counter(value for value in values if value is not None)
            column = np.array(values, dtype=object)
            for value, _ in known.most_common(MOST_VALUES):
                yield Slice(field, value, np.asarray(column == value, dtype=bool))

    def warnings(self) -> list[str]:
        """What has no slice."""
        found = []
        for field, values in self._values.items():
            known = Counter(value for value in values if value is not None)
            missing = len(values) - known.total()
            if missing:
                found.append(f"slices: {missing} of {len(values)} items have no {field}")
            if len(known) > MOST_VALUES:
                found.append(
                    f"slices: {field} has {len(known)} values, the {MOST_VALUES} most frequent "
                    "have figures of their own"
                )
        return found


def _value(metadata: dict[str, Any] | None, field: str) -> str | None:
    found: Any = metadata
    for part in field.split(".")[1:]:
        found = found.get(part) if isinstance(found, dict) else None
    if found is None:
        return None
    return (found if isinstance(found, str) else json.dumps(found))[:_SHOWN]
