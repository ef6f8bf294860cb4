"""The two drivers: they do what operations ask for, over a sync or an async connection."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeVar, cast

import httpx2
from pydantic import BaseModel

from datassay.calls import Call
from datassay.config import Config
from datassay.operations import Exchange, Operation, Operations
from datassay.paging import Paging
from datassay.retry import RetryPolicy

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)


class Transport:
    """Runs operations on a `httpx2.Client`; safe to share between threads."""

    def __init__(
        self,
        config: Config,
        policy: RetryPolicy,
        transport: httpx2.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.operations = Operations(policy)
        self.sleep = sleep
        self.base_url = config.base_url.rstrip("/")
        self._timeout = config.timeout
        self._http = httpx2.Client(
            base_url=config.base_url,
            headers=config.headers(),
            timeout=config.timeout,
            transport=transport,
            follow_redirects=True,  # large contents may lie in an object store
        )

    def run(self, operation: Operation[T]) -> T:
        """Drive an operation to its end and return its result."""
        try:
            exchange = next(operation)
            while True:
                try:
                    response = self._exchange(exchange)
                except httpx2.RequestError as error:
                    exchange = operation.throw(error)
                else:
                    exchange = operation.send(response)
        except StopIteration as stop:
            return cast(T, stop.value)

    @contextmanager
    def open(self, call: Call) -> Iterator[httpx2.Response]:
        """A response whose body is still to be read."""
        response = self.run(self.operations.send(call))
        try:
            yield response
        finally:
            response.close()

    def pages(self, call: Call, model: type[M], limit: int | None = None) -> Iterator[M]:
        """Every element of a list over all its pages, at most `limit`."""
        paging = Paging(call, model, limit)
        while not paging.done:
            page = self.run(self.operations.fetch_page(paging.call()))
            yield from paging.accept(page)

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def _exchange(self, exchange: Exchange) -> httpx2.Response:
        if exchange.pause > 0:
            self.sleep(exchange.pause)
        call = exchange.call
        request = self._http.build_request(**_request(call, self._timeout))
        response = self._http.send(request, stream=call.stream)
        if call.stream and not response.is_success:
            response.read()
        return response


class AsyncTransport:
    """Runs operations on a `httpx2.AsyncClient`."""

    def __init__(
        self,
        config: Config,
        policy: RetryPolicy,
        transport: httpx2.AsyncBaseTransport | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.operations = Operations(policy)
        self.sleep = sleep
        self.base_url = config.base_url.rstrip("/")
        self._timeout = config.timeout
        self._http = httpx2.AsyncClient(
            base_url=config.base_url,
            headers=config.headers(),
            timeout=config.timeout,
            transport=transport,
            follow_redirects=True,
        )

    async def run(self, operation: Operation[T]) -> T:
        """Drive an operation to its end and return its result."""
        try:
            exchange = next(operation)
            while True:
                try:
                    response = await self._exchange(exchange)
                except httpx2.RequestError as error:
                    exchange = operation.throw(error)
                else:
                    exchange = operation.send(response)
        except StopIteration as stop:
            return cast(T, stop.value)

    @asynccontextmanager
    async def open(self, call: Call) -> AsyncIterator[httpx2.Response]:
        """A response whose body is still to be read."""
        response = await self.run(self.operations.send(call))
        try:
            yield response
        finally:
            await response.aclose()

    async def pages(self, call: Call, model: type[M], limit: int | None = None) -> AsyncIterator[M]:
        """Every element of a list over all its pages, at most `limit`."""
        paging = Paging(call, model, limit)
        while not paging.done:
            page = await self.run(self.operations.fetch_page(paging.call()))
            for item in paging.accept(page):
                yield item

    async def close(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    async def _exchange(self, exchange: Exchange) -> httpx2.Response:
        if exchange.pause > 0:
            await self.sleep(exchange.pause)
        call = exchange.call
        request = self._http.build_request(**_request(call, self._timeout))
        response = await self._http.send(request, stream=call.stream)
        if call.stream and not response.is_success:
            await response.aread()
        return response


def _request(call: Call, timeout: float) -> dict[str, Any]:
    """Arguments of `build_request`, the same in both worlds."""
    request: dict[str, Any] = {
        "method": call.method,
        "url": call.path,
        "params": call.params or None,
        "headers": call.headers,
        "timeout": httpx2.Timeout(timeout, read=timeout + call.hold),
    }
    if call.json is not None:
        request["json"] = call.json
    if call.upload is not None:
        upload = call.upload
        request["files"] = {"file": (upload.file_name, upload, upload.media_type)}
    return request
