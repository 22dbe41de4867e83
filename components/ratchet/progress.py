"""Show the progress of long work on stderr: a bar on a terminal, a line now and then in a log."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol, TextIO, TypeVar

T = TypeVar("T")

LOG_EVERY_S = 60.0  # a pod's log shows that work goes on, without a line for each item


class Progress(Protocol):
    """A handle for reporting how far a piece of work has come."""

    def advance(self, done: float = 1) -> None:
        """Report that `done` more of the total is finished."""

    def update(self, completed: float, note: str = "") -> None:
        """Report that `completed` of the total is finished; `note` replaces the work's description."""


@contextmanager
def show_progress(
    what: str,
    total: float,
    *,
    stream: TextIO | None = None,
    log_every_s: float = LOG_EVERY_S,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Progress]:
    """Show the progress of `what` inside the block, on `stream` (stderr by default).

    A terminal gets a bar that disappears at the end. Any other stream gets a line at most every `log_every_s` seconds,
    so work that is shorter than that prints nothing.
    """
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    console = Console(file=stream or sys.stderr)
    if not console.is_terminal:
        yield _LogLines(what, total, stream or sys.stderr, log_every_s, clock)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=console, transient=True) as bar:
        task = bar.add_task(what, total=total)

        class Shown:
            def advance(self, done: float = 1) -> None:
                bar.advance(task, done)

            def update(self, completed: float, note: str = "") -> None:
                bar.update(task, completed=completed, description=note or what, refresh=True)

        yield Shown()


def track(items: Sequence[T], what: str) -> Iterable[T]:
    """Yield the items and show how many of them the caller has finished with."""
    with show_progress(what, len(items)) as progress:
        for item in items:
            yield item
            progress.advance()


class _LogLines:
    """Progress as lines such as `evaluate_adapter: 40% after 120 s`."""

    def __init__(self, what: str, total: float, stream: TextIO, every_s: float, clock: Callable[[], float]) -> None:
        self.what, self.note, self.total, self.completed = what, what, total, 0.0
        self.stream, self.every_s, self.clock = stream, every_s, clock
        self.started_at = self.printed_at = clock()

    def advance(self, done: float = 1) -> None:
        self.completed += done
        self._print_if_due()

    def update(self, completed: float, note: str = "") -> None:
        self.completed, self.note = completed, note or self.what
        self._print_if_due()

    def _print_if_due(self) -> None:
        now = self.clock()
        if now - self.printed_at >= self.every_s:
            self.printed_at = now
            share = self.completed / self.total if self.total else 1.0
            print(f"{self.note}: {share:.0%} after {now - self.started_at:.0f} s", file=self.stream, flush=True)
