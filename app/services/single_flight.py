"""One read for all callers that ask for the same at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, TypeVar
from weakref import WeakValueDictionary

T = TypeVar("T")


class SingleFlight:
    """Calls that arrive before a read starts share it; later calls share the next one.

    So no caller gets what was read before it asked, and one read of a key runs at a time.
    """

    def __init__(self) -> None:
        self._next: dict[Hashable, asyncio.Future[Any]] = {}
        self._turns: WeakValueDictionary[Hashable, asyncio.Lock] = WeakValueDictionary()

    async def __call__(self, key: Hashable, read: Callable[[], Awaitable[T]]) -> T:
        """The outcome of `read`, or its exception; all reads of one `key` have to be alike."""
        waiting = self._next.get(key)
        if waiting is None:
            waiting = self._next[key] = asyncio.ensure_future(self._begin(key, read))
            # With every caller gone, nobody would retrieve an exception.
            waiting.add_done_callback(lambda done: done.cancelled() or done.exception())
        # A caller that is cancelled does not cancel the read of the others.
        value: T = await asyncio.shield(waiting)
        return value

    async def _begin(self, key: Hashable, read: Callable[[], Awaitable[T]]) -> T:
        async with self._turns.setdefault(key, asyncio.Lock()):
            del self._next[key]
            return await read()
