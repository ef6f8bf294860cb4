"""Walking through a list that comes in pages."""

from __future__ import annotations

from typing import Generic, TypeVar

from pydantic import BaseModel

from datassay.calls import LARGEST_PAGE, Call
from datassay.operations import Page, parse_item

M = TypeVar("M", bound=BaseModel)


class Paging(Generic[M]):
    """Which page to ask for next, and which of its elements to hand out.

    Args:
        call: The list request without cursor and limit.
        model: What an element is parsed into.
        limit: Most elements over all pages; None for all.
    """

    def __init__(self, call: Call, model: type[M], limit: int | None) -> None:
        self._call = call
        self._model = model
        self._left = limit
        self._cursor: str | None = None
        self._begun = False

    @property
    def done(self) -> bool:
        """Whether no page is left to ask for."""
        exhausted = self._begun and self._cursor is None
        return exhausted or (self._left is not None and self._left <= 0)

    def call(self) -> Call:
        """The request for the next page."""
        size = LARGEST_PAGE if self._left is None else min(self._left, LARGEST_PAGE)
        return self._call.at(self._cursor, size)

    def accept(self, page: Page) -> list[M]:
        """The elements of a page, parsed."""
        items = [parse_item(item, self._model) for item in page.items[: self._left]]
        if self._left is not None:
            self._left -= len(items)
        self._begun, self._cursor = True, page.next_cursor
        return items
