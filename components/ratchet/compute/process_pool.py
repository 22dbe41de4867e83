"""A pool of processes, each with its share of the cores, for work whose threads would wait for each other."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from types import TracebackType
from typing import Self, TypeVar

from ratchet.errors import UserError

T = TypeVar("T")


class ProcessPool:
    """`number` worker processes, which run `initializer` at once; with fewer than two, this process does the work.

    The mapped function must be importable, and so must the main module: a script needs `if __name__ == "__main__"`.
    """

    def __init__(self, number: int, cores: int, initializer: Callable[[], object]) -> None:
        self._pool = _pool(number, max(1, cores // number)) if number > 1 else None
        for _ in range(number if self._pool else 0):
            self._pool.submit(initializer)  # type: ignore[union-attr]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool:
            self._pool.shutdown(cancel_futures=True)

    def for_each(self, work: Callable[[T], None], items: Iterable[T]) -> None:
        """Do the work for all items. Its errors propagate; UserError if a process was killed or did not start."""
        try:
            for _ in (self._pool.map if self._pool else map)(work, items):
                pass
        except BrokenProcessPool:
            raise UserError(
                "a process was killed while it worked, most likely for want of memory, or could not start; give more "
                "memory, or fewer cores (POLARS_MAX_THREADS=1 works in one process), and a script of your own its "
                '`if __name__ == "__main__"`; then run again: what is done is kept'
            ) from None


def _pool(number: int, threads: int) -> ProcessPoolExecutor:
    """Start processes by `spawn`: a fork would copy the locks that Polars' threads hold."""
    return ProcessPoolExecutor(
        number, mp_context=multiprocessing.get_context("spawn"), initializer=_begin, initargs=(threads,)
    )


def _begin(threads: int) -> None:
    """Set up a new process, before it imports anything heavy."""
    os.environ["POLARS_MAX_THREADS"] = str(threads)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent gets it too, and ends its workers
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Exit when the parent is killed: the pool's processes would wait for work for ever."""
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)
