"""What a stretch of a program costs: its wall time and CPU seconds, and the process's peak memory at its end."""

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def cost(stages: dict[str, dict[str, float]], name: str) -> Iterator[None]:
    """Adds an entry under `name` when the block ends."""
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    stages[name] = {
        "wall_s": time.perf_counter() - wall,
        "cpu_s": time.process_time() - cpu,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
