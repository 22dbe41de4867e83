"""The thread that owns the model: it takes requests from a queue, keeps the batch full, and swaps adapters."""

import queue
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from ratchet.inference.batching import DecodingBatch, GenerationRow
from ratchet.inference.lora import MultiLoraModel

MAX_ROWS = 64
STEPS_BETWEEN_JOINS = 4  # reading one prompt alone takes as long as a token for all rows
MAX_CELLS = 1 << 17  # rows times the longest row: bounds the KV cache, to 3 GB for the embedded model


class Engine:
    """Generates rows and holds adapters. Thread-safe; `close` ends its thread.

    Each loaded adapter gets a fresh slot that is never used again: a name that is unloaded and loaded anew cannot meet
    rows of the old one.
    """

    def __init__(self, model: Any, stop_tokens: frozenset[int]) -> None:
        self._lora = MultiLoraModel(model)
        self._stop_tokens = stop_tokens
        self._batch = DecodingBatch(self._lora, stop_tokens)
        self._waiting: deque[GenerationRow] = deque()
        self._answers: dict[GenerationRow, Future[GenerationRow]] = {}
        self._listeners: dict[GenerationRow, Callable[[], object]] = {}
        self._retired: set[str] = set()
        self._slots = 0
        self._steps = 0
        self._is_closed = False
        self._jobs: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    @property
    def running(self) -> list[GenerationRow]:
        return list(self._batch.rows)

    @property
    def waiting(self) -> list[GenerationRow]:
        return list(self._waiting)

    @property
    def cache_share(self) -> float:
        """How much of the KV cache is spoken for, 0 to 1."""
        rows = self.running
        return min(1.0, len(rows) * max(map(_size, rows), default=0) / MAX_CELLS)

    def generate(self, row: GenerationRow, on_token: Callable[[], object] | None = None) -> Future[GenerationRow]:
        """The same row, with its tokens and finish reason. `on_token` is called, from another thread, as they come."""
        answer: Future[GenerationRow] = Future()
        self._jobs.put(lambda: self._accept(row, answer, on_token))
        return answer

    def abort(self, row: GenerationRow) -> None:
        """Stop writing this row: its answer is what there is of it."""
        self._jobs.put(lambda: self._abort(row))

    def load(self, folder: Path) -> Future[str]:
        """The slot that holds the adapter now, for `Row.adapter`; UserError if it cannot be served on this base."""
        slot: Future[str] = Future()
        self._jobs.put(lambda: _settle(slot, lambda: self._load(folder)))
        return slot

    def retire(self, slot: str) -> None:
        """Free a slot, once the rows that use it are done."""
        self._jobs.put(lambda: self._retired.add(slot))

    def close(self) -> None:
        """End the thread; unfinished rows are abandoned."""
        self._jobs.put(lambda: setattr(self, "_is_closed", True))
        self._thread.join()

    def _run(self) -> None:
        while not self._is_closed:
            self._take_jobs()
            self._free_slots()
            try:
                finished = self._advance()
            except Exception as error:  # out of memory, mostly; the thread must outlive it, or nobody gets an answer
                self._fail(error)
            else:
                for row in finished:
                    self._answer(row)
                for told in list(self._listeners.values()):
                    told()

    def _take_jobs(self) -> None:
        """Do what has been asked for; if there is nothing to generate, wait for the next request."""
        if not (self._batch.rows or self._waiting):
            self._jobs.get()()
        while not self._jobs.empty():
            self._jobs.get()()

    def _advance(self) -> list[GenerationRow]:
        finished = []
        is_time = not self._batch.rows or self._steps % STEPS_BETWEEN_JOINS == 0
        if is_time and (newcomers := self._admit()):
            finished += self._batch.join(newcomers)
        if self._batch.rows:
            finished += self._batch.step()
            self._steps += 1
        return finished

    def _admit(self) -> list[GenerationRow]:
        """As many of the waiting rows as fit; always one if nothing is running."""
        admitted: list[GenerationRow] = []
        longest = max((_size(row) for row in self._batch.rows), default=0)
        while self._waiting:
            longest = max(longest, _size(self._waiting[0]))
            num_rows = len(self._batch.rows) + len(admitted)
            if num_rows and (num_rows == MAX_ROWS or (num_rows + 1) * longest > MAX_CELLS):
                break
            admitted.append(self._waiting.popleft())
        return admitted

    def _accept(self, row: GenerationRow, answer: Future[GenerationRow], on_token: Callable[[], object] | None) -> None:
        if answer.set_running_or_notify_cancel():
            self._answers[row] = answer
            self._waiting.append(row)
            if on_token:
                self._listeners[row] = on_token

    def _abort(self, row: GenerationRow) -> None:
        if row in self._answers:
            row.finish_reason = row.finish_reason or "abort"  # the batch lets it go at its next step
        if row in self._waiting:
            self._waiting.remove(row)
            self._answer(row)

    def _answer(self, row: GenerationRow) -> None:
        self._listeners.pop(row, None)
        self._answers.pop(row).set_result(row)

    def _fail(self, error: Exception) -> None:
        doomed = set(self._answers) - set(self._waiting)
        self._batch = DecodingBatch(self._lora, self._stop_tokens)
        for row in doomed:
            self._listeners.pop(row, None)
            self._answers.pop(row).set_exception(error)

    def _load(self, folder: Path) -> str:
        self._slots += 1
        slot = f"slot{self._slots}"
        self._lora.load(folder, slot)
        return slot

    def _free_slots(self) -> None:
        in_use = {row.adapter for row in self._answers}
        for slot in sorted(self._retired - in_use):
            self._lora.unload(slot)
            self._batch.forget(slot)
            self._retired.discard(slot)


def _size(row: GenerationRow) -> int:
    return len(row.prompt) + row.max_tokens


def _settle(future: "Future[str]", work: Callable[[], str]) -> None:
    try:
        future.set_result(work())
    except Exception as error:
        future.set_exception(error)
