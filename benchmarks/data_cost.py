"""What a stretch of a program costs: wall time, CPU seconds, and the peak memory at its end.

Processes that it started and that have ended count too: their CPU seconds, and the memory of the largest.
"""

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager

WHOSE = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)


@contextmanager
def cost(stages: dict[str, dict[str, float]], name: str) -> Iterator[None]:
    """Adds an entry under `name` when the block ends."""
    wall, cpu = time.perf_counter(), _cpu_s()
    yield
    stages[name] = {
        "wall_s": time.perf_counter() - wall,
        "cpu_s": _cpu_s() - cpu,
        "peak_mb": max(resource.getrusage(whose).ru_maxrss for whose in WHOSE) / 1024,
    }


def _cpu_s() -> float:
    used = [resource.getrusage(whose) for whose in WHOSE]
    return sum(one.ru_utime + one.ru_stime for one in used)
