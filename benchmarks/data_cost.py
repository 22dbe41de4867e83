"""What a stretch of a program costs: wall time, CPU seconds, and the most memory so far.

Processes that it started count too: CPU seconds once they have ended, memory while they run. Pages of mapped files, of
which the kernel may drop any, are told apart.
"""

import resource
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

WHOSE = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
EVERY_S = 0.05


class _Peak:
    """The most memory, in bytes, that this process and those below it have held, looked at every `EVERY_S`."""

    def __init__(self) -> None:
        self.all = self.own = 0
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        me = psutil.Process()
        while True:
            self.look(me)
            time.sleep(EVERY_S)

    def look(self, me: psutil.Process) -> None:
        found = []
        for process in (me, *me.children(recursive=True)):
            try:
                found.append(process.memory_info())
            except psutil.NoSuchProcess:  # ended since it was listed
                continue
        own = sum(one.rss - one.shared for one in found)
        self.own = max(self.own, own)
        self.all = max(self.all, own + max(one.shared for one in found))  # the same libraries, in each of them


_peak = _Peak()


@contextmanager
def cost(stages: dict[str, dict[str, float]], name: str) -> Iterator[None]:
    """Adds an entry under `name` when the block ends."""
    wall, cpu = time.perf_counter(), _cpu_s()
    yield
    stages[name] = {
        "wall_s": time.perf_counter() - wall,
        "cpu_s": _cpu_s() - cpu,
        "peak_mb": _peak.all / 2**20,
        "own_mb": _peak.own / 2**20,
    }


def _cpu_s() -> float:
    used = [resource.getrusage(whose) for whose in WHOSE]
    return sum(one.ru_utime + one.ru_stime for one in used)
