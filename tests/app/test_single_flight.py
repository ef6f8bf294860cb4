"""Who may share a read with whom."""

from __future__ import annotations

import asyncio

from app.services.single_flight import SingleFlight


class Source:
    """Reads end when the test says so, and find how many changes there were when they began."""

    def __init__(self) -> None:
        self.value, self.reads, self.ends = 0, 0, asyncio.Event()

    async def read(self) -> int:
        self.reads += 1
        found = self.value
        await self.ends.wait()
        return found


async def _settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_who_asks_at_once_shares_a_read_and_who_asks_later_gets_a_later_one() -> None:
    together, source = SingleFlight(), Source()
    early = [asyncio.create_task(together("job", source.read)) for _ in range(100)]
    await _settled()
    source.value = 1
    late = [asyncio.create_task(together("job", source.read)) for _ in range(100)]
    await _settled()
    assert source.reads == 1, "of one thing one read runs at a time"
    source.ends.set()
    assert await asyncio.gather(*early) == [0] * 100
    assert await asyncio.gather(*late) == [1] * 100, "what was read before one asked is old"
    assert source.reads == 2


async def test_reads_of_different_things_run_side_by_side() -> None:
    together, source = SingleFlight(), Source()
    both = [asyncio.create_task(together(key, source.read)) for key in ("one", "other")]
    await _settled()
    assert source.reads == 2
    source.ends.set()
    assert await asyncio.gather(*both) == [0, 0]


async def test_one_who_leaves_takes_the_read_from_nobody() -> None:
    together, source = SingleFlight(), Source()
    first, second = (asyncio.create_task(together("job", source.read)) for _ in range(2))
    await _settled()
    first.cancel()
    await _settled()
    source.ends.set()
    assert await second == 0
    assert source.reads == 1


async def test_a_failure_is_everybodys_and_is_not_kept() -> None:
    together = SingleFlight()

    async def fail() -> int:
        raise LookupError("no such job")

    async def work() -> int:
        return 7

    both = await asyncio.gather(*(together("job", fail) for _ in range(2)), return_exceptions=True)
    assert [type(error) for error in both] == [LookupError, LookupError]
    assert await together("job", work) == 7


async def test_nothing_is_kept() -> None:
    together = SingleFlight()

    async def work() -> int:
        return 7

    assert await together("job", work) == 7
    assert not together._next
    assert not together._turns
