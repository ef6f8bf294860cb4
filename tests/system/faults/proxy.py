"""A slow or silent line to the database: a relay between two Unix sockets."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from pathlib import Path


class Line:
    """Relays connections to a Unix socket.

    Args:
        listen: the socket that clients connect to.
        target: the socket behind it; while nobody listens there, clients are cut off.

    Attributes:
        delay: seconds that every piece of data waits, in both directions.
    """

    def __init__(self, listen: Path, target: Path) -> None:
        self._listen, self._target = listen, target
        self.delay = 0.0
        self._loop = asyncio.new_event_loop()
        self._open = asyncio.Event()
        self._open.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._serve(), self._loop).result(10)

    def silence(self) -> None:
        """Deliver nothing until `speak`; connections stay up, as when a network is cut."""
        self._loop.call_soon_threadsafe(self._open.clear)

    def speak(self) -> None:
        """Deliver again, what was held back first."""
        self._loop.call_soon_threadsafe(self._open.set)

    def close(self) -> None:
        """Cut every connection."""

        async def end() -> None:
            self._server.close()
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _serve(self) -> None:
        self._server = await asyncio.start_unix_server(self._accept, self._listen)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            far_reader, far_writer = await asyncio.open_unix_connection(self._target)
            try:
                ways = [self._relay(reader, far_writer), self._relay(far_reader, writer)]
                await asyncio.wait(
                    [asyncio.ensure_future(way) for way in ways],
                    return_when=asyncio.FIRST_COMPLETED,
                )
            finally:
                far_writer.close()
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            writer.close()
            self._tasks.discard(task)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                await asyncio.sleep(self.delay)
                await self._open.wait()
                writer.write(data)
                await writer.drain()
