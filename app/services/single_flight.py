"""One read for all who ask for the same at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, TypeVar
from weakref import WeakValueDictionary

T = TypeVar("T")


class Together:
    """Shares reads: who asks before one begins gets what it finds, who asks later gets the next.

    So nobody is given what was read before it asked, and of one thing one read runs at a time.
    """

    def __init__(self) -> None:
        self._next: dict[Hashable, asyncio.Future[Any]] = {}
        self._turns: WeakValueDictionary[Hashable, asyncio.Lock] = WeakValueDictionary()

    async def __call__(self, key: Hashable, read: Callable[[], Awaitable[T]]) -> T:
        """What `read` finds; all reads of one `key` have to be alike. Raises what `read` raises."""
        waiting = self._next.get(key)
        if waiting is None:
            waiting = self._next[key] = asyncio.ensure_future(self._begin(key, read))
            # If everybody who asked has gone, nobody hears of a failure.
            waiting.add_done_callback(lambda done: done.cancelled() or done.exception())
        # One who leaves does not end the read of the others.
        found: T = await asyncio.shield(waiting)
        return found

    async def _begin(self, key: Hashable, read: Callable[[], Awaitable[T]]) -> T:
        async with self._turns.setdefault(key, asyncio.Lock()):
            del self._next[key]
            return await read()
