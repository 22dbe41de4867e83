"""Set the process-wide switches under which equal inputs give equal bytes."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.utils import deterministic as debugging


@contextmanager
def deterministic(threads: int) -> Iterator[None]:
    """Make torch deterministic on `threads` CPU threads inside the block; restore the settings afterwards."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is not deterministic without it
    before = torch.are_deterministic_algorithms_enabled(), torch.get_num_threads()
    fill = debugging.fill_uninitialized_memory  # type: ignore[attr-defined]  # torch types it as a plain module
    torch.use_deterministic_algorithms(True)
    debugging.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # debugging aid, 4% of a step
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        debugging.fill_uninitialized_memory = fill  # type: ignore[attr-defined]
        torch.set_num_threads(before[1])
