"""A job's history: what happened so far, and what happens while one looks on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import httpx2
from pydantic import ValidationError

from datassay import calls
from datassay.calls import Call
from datassay.errors import ConnectionFailed, InvalidResponse
from datassay.models import Event
from datassay.operations import Page, connection_failed, parse_item
from datassay.retry import Reconnects, RetryPolicy
from datassay.transport import AsyncTransport, Transport


class EventCursor:
    """Where a reader of events stands; survives dropped connections."""

    def __init__(self, job_id: str, after: int, policy: RetryPolicy) -> None:
        self._job_id = job_id
        self._last = after
        self._reconnects = Reconnects(policy)
        self.done = False

    def live(self) -> Call:
        """The request for everything that is still unread, as it happens."""
        return calls.follow_events(self._job_id, self._last)

    def stored(self) -> Call:
        """The request for the next page of what is unread and has happened."""
        return calls.job_events(self._job_id, self._last)

    def accept(self, message: httpx2.ServerSentEvent) -> Event | None:
        """The event in a message; None for one that was read before."""
        try:
            event = Event.model_validate_json(message.data)
        except ValidationError as error:
            raise InvalidResponse(f"unexpected event in the stream: {message.data!r}") from error
        if event.seq <= self._last:
            return None
        self._last = event.seq
        self._reconnects.progressed()
        self.done = event.ends_job
        return event

    def accept_page(self, page: Page) -> list[Event]:
        """The events of a stored page; an empty page is the end."""
        events = [parse_item(item, Event) for item in page.items]
        self._last = max((event.seq for event in events), default=self._last)
        self.done = not events
        return events

    def dropped(self, error: httpx2.TransportError | None) -> float:
        """Seconds to wait before reading on, after an error or a close without a last event.

        Raises:
            ConnectionFailed: The connection drops again and again without anything new.
        """
        if error is None:
            failure = ConnectionFailed("the event stream closed before the job ended")
        else:
            failure = connection_failed(error)
        return self._reconnects.delay(failure)


def stored_events(transport: Transport, job_id: str, after: int) -> Iterator[Event]:
    """Events that have happened, oldest first."""
    cursor = EventCursor(job_id, after, transport.operations.policy)
    while not cursor.done:
        page = transport.run(transport.operations.fetch_page(cursor.stored()))
        yield from cursor.accept_page(page)


def live_events(transport: Transport, job_id: str, after: int) -> Iterator[Event]:
    """Events as they happen, to the one that ends the job; resumes dropped connections."""
    cursor = EventCursor(job_id, after, transport.operations.policy)
    while not cursor.done:
        dropped: httpx2.TransportError | None = None
        with transport.open(cursor.live()) as response:
            try:
                for message in httpx2.EventSource(response):
                    event = cursor.accept(message)
                    if event is not None:
                        yield event
                    if cursor.done:
                        return
            except httpx2.TransportError as error:
                dropped = error
        transport.sleep(cursor.dropped(dropped))


async def stored_events_async(
    transport: AsyncTransport, job_id: str, after: int
) -> AsyncIterator[Event]:
    """Events that have happened, oldest first."""
    cursor = EventCursor(job_id, after, transport.operations.policy)
    while not cursor.done:
        page = await transport.run(transport.operations.fetch_page(cursor.stored()))
        for event in cursor.accept_page(page):
            yield event


async def live_events_async(
    transport: AsyncTransport, job_id: str, after: int
) -> AsyncIterator[Event]:
    """Events as they happen, to the one that ends the job; resumes dropped connections."""
    cursor = EventCursor(job_id, after, transport.operations.policy)
    while not cursor.done:
        dropped: httpx2.TransportError | None = None
        async with transport.open(cursor.live()) as response:
            try:
                async for message in httpx2.EventSource(response):
                    event = cursor.accept(message)
                    if event is not None:
                        yield event
                    if cursor.done:
                        return
            except httpx2.TransportError as error:
                dropped = error
        await transport.sleep(cursor.dropped(dropped))
