"""Prefetch: prepare the next items on other threads while the consumer works on this one."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")
Result = TypeVar("Result")
END: Any = object()


def prefetch_one(items: Iterable[T]) -> Iterator[T]:
    """Yield the same items, each prepared while the one before it is in use: two are in memory. Errors propagate."""
    source = iter(items)
    with ThreadPoolExecutor(1) as maker:
        coming = maker.submit(next, source, END)
        while (item := coming.result()) is not END:
            coming = maker.submit(next, source, END)
            yield item


def prefetch_map(function: Callable[[T], Result], items: Iterable[T], workers: int) -> Iterator[Result]:
    """Map in order on `workers` threads; at most `workers` + 1 results are alive."""
    coming: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        for item in items:
            coming.append(pool.submit(function, item))
            if len(coming) > workers:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()
