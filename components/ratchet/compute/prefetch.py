"""The next items made on other cores while this one is worked on."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")
Result = TypeVar("Result")
END: Any = object()


def prefetch_one(items: Iterable[T]) -> Iterator[T]:
    """The same items, each made while the one before it is in use: two are in memory. What goes wrong is raised."""
    source = iter(items)
    with ThreadPoolExecutor(1) as maker:
        coming = maker.submit(next, source, END)
        while (item := coming.result()) is not END:
            coming = maker.submit(next, source, END)
            yield item


def prefetch_map(make: Callable[[T], Result], items: Iterable[T], makers: int) -> Iterator[Result]:
    """What is made of each item, in their order; so many are in the making or made beside the one in use."""
    coming: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(makers) as pool:
        for item in items:
            coming.append(pool.submit(make, item))
            if len(coming) > makers:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()
