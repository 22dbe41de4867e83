"""Write events to the lake by group commit: events that arrive while a file is written go into the next file.

An event is acknowledged when the lake has it. Until then it is only in memory, so its sender must keep it: a lake that
is slow, full or unreachable causes an error for the sender, never a loss. The bound on waiting bytes is backpressure.
"""

import asyncio
import logging
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field

from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_not_exception_type,
    stop_after_delay,
    wait_random_exponential,
)

from ratchet.errors import UserError
from ratchet.events import Feedback, Interaction
from ratchet.ingest.landing import batch_name, land
from ratchet.store import Store

Event = Interaction | Feedback
OVERHEAD_BYTES = 1024  # memory of a waiting event besides its text
logger = logging.getLogger(__name__)


class NotStored(Exception):
    """The event is not known to be in the lake; sending it again is safe (idempotent)."""


@dataclass(frozen=True)
class Waiting:
    """An event that waits to be written; `durable` resolves when the lake has it."""

    event: Event
    size_bytes: int
    durable: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class EventLog:
    """Lands appended events in batches, one file each. Use as `async with`: leaving flushes. Bound to one event loop.

    A batch is written at once if no write is in progress, else after `linger_s`, so a slow write delays others no
    longer than that. At most one write starts per `pace_s`, which bounds the number of files, and at most `max_flights`
    run concurrently. Failed writes are retried for `patience_s`, the longest wait of an `append`. `writer` names this
    process.
    """

    def __init__(
        self,
        store: Store,
        writer: str,
        *,
        pace_s: float = 0.02,
        linger_s: float = 0.1,
        patience_s: float = 5.0,
        max_batch: int = 1000,
        max_flights: int = 8,
        max_waiting_bytes: int = 1 << 26,
    ) -> None:
        self._store, self._writer = store, writer
        self._pace_s, self._linger_s, self._patience_s = pace_s, linger_s, patience_s
        self._max_batch, self._max_waiting_bytes = max_batch, max_waiting_bytes
        self._queue: deque[Waiting] = deque()
        self._waiting_bytes = 0
        self._flights: set[asyncio.Task[None]] = set()
        self._max_flights = max_flights
        self._writers = ThreadPoolExecutor(max_flights, "event-log")
        self._trouble = ""
        self._work = asyncio.Event()
        self._closing = asyncio.Event()

    @property
    def is_full(self) -> bool:
        return self._waiting_bytes >= self._max_waiting_bytes

    async def append(self, event: Event) -> None:
        """Return once the event is durable, or raise NotStored."""
        try:
            waiting = Waiting(event, len(event.model_dump_json()) + OVERHEAD_BYTES)
        except ValueError as error:  # such as half a surrogate pair: it must not fail the rest of its batch
            raise NotStored(str(error)) from None
        if self.is_full:
            raise NotStored(f"{self._waiting_bytes} bytes of events are waiting for the lake")
        self._waiting_bytes += waiting.size_bytes
        self._queue.append(waiting)
        self._work.set()
        # asyncio.wait_for does the same, but more slowly, and every vote passes here.
        late = asyncio.get_running_loop().call_later(self._patience_s, self._give_up, waiting)
        try:
            await waiting.durable
        finally:
            late.cancel()

    def _give_up(self, waiting: Waiting) -> None:
        if not waiting.durable.done():
            why = f"the lake has not taken it within {self._patience_s:g} s{self._trouble}"
            waiting.durable.set_exception(NotStored(why))

    async def __aenter__(self) -> "EventLog":
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._closing.set()
        self._work.set()
        await self._task
        self._writers.shutdown(wait=False)

    async def _run(self) -> None:
        while self._queue or not self._closing.is_set():
            await self._work.wait()
            if self._flights:
                await asyncio.wait(self._flights, timeout=self._linger_s)
            while len(self._flights) >= self._max_flights:
                await asyncio.wait(self._flights, return_when=asyncio.FIRST_COMPLETED)
            self._depart()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), self._pace_s)
        if self._flights:
            await asyncio.wait(self._flights)

    def _depart(self) -> None:
        batch = [self._queue.popleft() for _ in range(min(len(self._queue), self._max_batch))]
        if not self._queue:
            self._work.clear()
        if batch:
            flight = asyncio.create_task(self._commit(batch))
            self._flights.add(flight)
            flight.add_done_callback(self._flights.discard)

    async def _commit(self, batch: list[Waiting]) -> None:
        try:
            await self._land([waiting.event for waiting in batch])
        except Exception as error:  # any error of the store: each caller must learn of it and keep its event
            logger.warning("%d events not stored: %r", len(batch), error)
            trouble = repr(error)
        else:
            trouble = ""
        for waiting in batch:
            self._waiting_bytes -= waiting.size_bytes
            if waiting.durable.done():  # the caller is gone; its event is stored all the same
                continue
            if trouble:
                waiting.durable.set_exception(NotStored(trouble))
            else:
                waiting.durable.set_result(None)

    async def _land(self, events: list[Event]) -> None:
        name = batch_name(self._writer)
        retrying = AsyncRetrying(
            retry=retry_if_not_exception_type(UserError),
            stop=stop_after_delay(self._patience_s),
            wait=wait_random_exponential(0.1, max=1),
            before_sleep=self._note,
            reraise=True,
        )
        loop = asyncio.get_running_loop()
        async for attempt in retrying:
            with attempt:
                await loop.run_in_executor(self._writers, land, self._store, events, name)
        self._trouble = ""

    def _note(self, failed: RetryCallState) -> None:
        self._trouble = f": {failed.outcome.exception()!r}" if failed.outcome else ""
