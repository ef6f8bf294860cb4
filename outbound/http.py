"""HTTP requests whose connections the guard has checked, with limits on everything."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urljoin

import httpcore2

from outbound.guard import Guard, Refused, Target, parse_url

#: A redirect to another place is followed this often.
MAX_REDIRECTS = 3
_CONNECT_SECONDS, _SILENCE_SECONDS = 10.0, 30.0
_REDIRECTS = (301, 302, 303, 307, 308)


class Unreachable(Exception):  # noqa: N818 - a fact, not a fault
    """The other side does not answer, or answers nonsense; another try may help."""


class TooLarge(Exception):  # noqa: N818
    """The other side sends more than was allowed."""


class _Pinned(httpcore2.AsyncNetworkBackend):
    """Connects to checked addresses, whatever the name would resolve to by now."""

    def __init__(self, addresses: list[str]) -> None:
        self._addresses = addresses
        self._backend = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - the name is httpcore2's
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        failure: Exception = httpcore2.ConnectError("no address")
        for address in self._addresses:
            try:
                return await self._backend.connect_tcp(address, port, timeout)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                failure = error
        raise failure


@asynccontextmanager
async def opened(
    guard: Guard,
    method: str,
    target: Target,
    headers: Mapping[str, str],
    content: bytes | None = None,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[httpcore2.Response]:
    """One exchange on a connection of its own; redirects are answers like any other.

    The caller sets the limit of the whole exchange with `asyncio.timeout`.

    Raises:
        Refused: by the guard.
        Unreachable: no connection, or no HTTP.
    """
    addresses = await asyncio.to_thread(guard.check, target)
    limits = {"connect": _CONNECT_SECONDS, "read": _SILENCE_SECONDS, "write": _SILENCE_SECONDS}
    context = tls or ssl.create_default_context()
    try:
        async with (
            httpcore2.AsyncConnectionPool(context, network_backend=_Pinned(addresses)) as pool,
            pool.stream(
                method,
                target.url,
                headers=list(headers.items()),
                content=content,
                extensions={"timeout": limits},
            ) as response,
        ):
            yield response
    except (httpcore2.NetworkError, httpcore2.ProtocolError, httpcore2.TimeoutException) as error:
        reason = str(error) or type(error).__name__
        raise Unreachable(f"{target.host} does not answer: {reason}"[:300]) from error


async def download(
    guard: Guard,
    target: Target,
    headers: Mapping[str, str],
    write: Callable[[bytes], object],
    max_bytes: int,
    tls: ssl.SSLContext | None = None,
) -> int:
    """GET a body piece by piece, following few redirects; returns the status of the last answer.

    The body of an answer other than 200 is not read. Each hop is checked anew: it must be public,
    or stay where the first one was. `headers` leave that place never.

    Raises:
        Refused: by the guard.
        TooLarge: more than `max_bytes`.
        Unreachable: no connection, no HTTP, a body that breaks off.
    """
    here, mine = target, dict(headers)
    for _ in range(MAX_REDIRECTS + 1):
        sent = {"Accept": "*/*", "Accept-Encoding": "identity", **mine}
        strict = guard if here.origin == target.origin else Guard(resolve=guard.resolve)
        async with opened(strict, "GET", here, sent, tls=tls) as response:
            found = {key.lower(): value for key, value in response.headers}
            if response.status in _REDIRECTS and b"location" in found:
                here = _next(here, found[b"location"])
                mine = dict(headers) if here.origin == target.origin else {}
                continue
            if response.status == 200:
                await _read(response, found, write, max_bytes)
            return int(response.status)
    raise Refused("redirect", f"more than {MAX_REDIRECTS} redirects")


def _next(here: Target, location: bytes) -> Target:
    try:
        return parse_url(urljoin(here.url, location.decode("ascii")))
    except (Refused, ValueError) as error:
        raise Refused("redirect", f"a redirect leads nowhere: {error}") from error


async def _read(
    response: httpcore2.Response,
    headers: Mapping[bytes, bytes],
    write: Callable[[bytes], object],
    max_bytes: int,
) -> None:
    if headers.get(b"content-encoding", b"identity").lower() not in (b"identity", b""):
        raise Unreachable("the answer is compressed although that was declined")
    size = 0
    declared = headers.get(b"content-length", b"0")
    if declared.isdigit() and int(declared) > max_bytes:
        raise TooLarge
    async for part in response.aiter_stream():
        size += len(part)
        if size > max_bytes:
            raise TooLarge
        write(part)
