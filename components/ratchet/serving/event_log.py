"""Events into the lake by group commit: what arrives within a moment is one file, and safe before anyone hears so."""

import asyncio
import logging
from collections import deque

from ratchet.events import Feedback, Interaction
from ratchet.lake.landing import batch_name, land
from ratchet.store import Store

Event = Interaction | Feedback
logger = logging.getLogger(__name__)


class NotStored(Exception):
    """The event is not in the lake, as far as anyone can tell; sending it again does no harm."""


class EventLog:
    """Lands what is appended, at most `max_batch` events a file, within `flush_s` of the first.

    An `async with` block runs it; leaving the block flushes. Belongs to one event loop. `writer` must be unique among
    the processes that write to the same lake.
    """

    def __init__(self, store: Store, writer: str, flush_s: float = 0.2, max_batch: int = 1000) -> None:
        self._store, self._writer = store, writer
        self._flush_s, self._max_batch = flush_s, max_batch
        self._waiting: deque[tuple[Event, asyncio.Future[None]]] = deque()
        self._work = asyncio.Event()
        self._closing = asyncio.Event()

    async def append(self, event: Event) -> None:
        """Return once the event is durable, or raise NotStored."""
        try:
            event.model_dump_json()
        except ValueError as error:  # half a surrogate pair, say: it must not take the rest of its batch with it
            raise NotStored(str(error)) from None
        durable: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((event, durable))
        self._work.set()
        await durable

    async def __aenter__(self) -> "EventLog":
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._closing.set()
        self._work.set()
        await self._task

    async def _run(self) -> None:
        while self._waiting or not self._closing.is_set():
            await self._work.wait()
            if len(self._waiting) < self._max_batch:
                await self._pause()
            batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), self._max_batch))]
            if not self._waiting:
                self._work.clear()
            if batch:
                await self._commit(batch)

    async def _pause(self) -> None:
        """Wait for company, but not while closing."""
        try:
            await asyncio.wait_for(self._closing.wait(), self._flush_s)
        except TimeoutError:
            return

    async def _commit(self, batch: list[tuple[Event, asyncio.Future[None]]]) -> None:
        events = [event for event, _ in batch]
        try:
            await asyncio.to_thread(land, self._store, events, batch_name(self._writer))
        except Exception as error:  # whatever the store raises, each caller has to hear it and still holds its event
            logger.warning("%d events not stored: %r", len(batch), error)
            for _, durable in batch:
                if not durable.done():
                    durable.set_exception(NotStored(repr(error)))
        else:
            for _, durable in batch:
                if not durable.done():  # a caller that went away; its event is safe all the same
                    durable.set_result(None)
