"""Run the model in its own thread: take requests from a queue, keep the batch full, load and free adapters."""

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
STEPS_BETWEEN_JOINS = 4  # prefilling one prompt takes as long as one token for all rows
MAX_CELLS = 1 << 17  # rows times the longest row: bounds the KV cache, to 3 GB for the embedded model


class Engine:
    """Generates rows and holds adapters. Thread-safe; `close` ends its thread.

    Each loaded adapter gets a new slot that is never reused, so a name that is unloaded and loaded again cannot affect
    rows of the old adapter.
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
        """The reserved share of the KV cache, 0 to 1."""
        rows = self.running
        return min(1.0, len(rows) * max(map(_size, rows), default=0) / MAX_CELLS)

    def generate(self, row: GenerationRow, on_token: Callable[[], object] | None = None) -> Future[GenerationRow]:
        """Queue the row; the future returns it finished. The engine's thread calls `on_token` after each step."""
        answer: Future[GenerationRow] = Future()
        self._jobs.put(lambda: self._accept(row, answer, on_token))
        return answer

    def abort(self, row: GenerationRow) -> None:
        """Stop generating this row; its answer is the tokens so far."""
        self._jobs.put(lambda: self._abort(row))

    def load(self, folder: Path) -> Future[str]:
        """Load an adapter; the future returns its slot, for `GenerationRow.adapter`, or raises UserError."""
        slot: Future[str] = Future()

        def job() -> None:
            try:
                self._slots += 1
                name = f"slot{self._slots}"
                self._lora.load(folder, name)
                slot.set_result(name)
            except Exception as error:
                slot.set_exception(error)

        self._jobs.put(job)
        return slot

    def retire(self, slot: str) -> None:
        """Free a slot after the rows that use it have finished."""
        self._jobs.put(lambda: self._retired.add(slot))

    def close(self) -> None:
        """End the thread; unfinished rows are abandoned."""
        self._jobs.put(lambda: setattr(self, "_is_closed", True))
        self._thread.join()

    def _run(self) -> None:
        while not self._is_closed:
            if not (self._batch.rows or self._waiting):  # no row to generate: wait for the next job
                self._jobs.get()()
            while not self._jobs.empty():
                self._jobs.get()()
            self._free_slots()
            try:
                finished = self._advance()
            except Exception as error:  # mostly out of memory; the thread must survive, or no request is answered again
                self._fail(error)
            else:
                for row in finished:
                    self._answer(row)
                for notify in list(self._listeners.values()):
                    notify()

    def _advance(self) -> list[GenerationRow]:
        finished = []
        is_due = not self._batch.rows or self._steps % STEPS_BETWEEN_JOINS == 0
        if is_due and (newcomers := self._admit()):
            finished += self._batch.join(newcomers)
        if self._batch.rows:
            finished += self._batch.step()
            self._steps += 1
        return finished

    def _admit(self) -> list[GenerationRow]:
        """Take as many waiting rows as fit; at least one if the batch is empty."""
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
            row.finish_reason = row.finish_reason or "abort"  # the batch drops it at its next step
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

    def _free_slots(self) -> None:
        in_use = {row.adapter for row in self._answers}
        for slot in sorted(self._retired - in_use):
            self._lora.unload(slot)
            self._batch.forget(slot)
            self._retired.discard(slot)


def _size(row: GenerationRow) -> int:
    return len(row.prompt) + row.max_tokens
