import threading
from collections.abc import Iterator
from queue import Queue

import pytest

from ratchet.compute.prefetch import prefetch_map, prefetch_one


@pytest.mark.parametrize("num", [0, 1, 5])
def test_the_same_items_in_the_same_order(num: int):
    assert list(prefetch_one(iter(range(num)))) == list(range(num))


def test_the_next_item_is_made_before_this_one_is_done():
    is_made = threading.Event()

    def two() -> Iterator[int]:
        yield 1
        is_made.set()
        yield 2

    items = prefetch_one(two())
    assert next(items) == 1
    assert is_made.wait(timeout=60)
    assert list(items) == [2]


def test_a_fault_is_raised_where_it_would_have_been():
    def broken() -> Iterator[int]:
        yield 1
        raise OSError("No space left on device")

    items = prefetch_one(broken())
    assert next(items) == 1
    with pytest.raises(OSError, match="No space left"):
        next(items)


@pytest.mark.parametrize("num", [0, 1, 2, 3, 20])
def test_what_is_made_by_several_comes_in_order(num: int):
    is_last_made = threading.Event()

    def slow_first(item: int) -> int:
        if item == 0 and num > 1:
            assert is_last_made.wait(timeout=60)
        is_last_made.set()
        return item * item

    assert list(prefetch_map(slow_first, range(num), workers=2)) == [item * item for item in range(num)]


def test_no_more_is_made_than_may_be_in_memory():
    made: Queue[int] = Queue()
    items = prefetch_map(made.put, range(20), workers=3)
    next(items)
    assert {made.get(timeout=60) for _ in range(4)} == {0, 1, 2, 3}
    assert made.empty()
    assert len(list(items)) == 19


def test_a_fault_in_the_making_is_raised_in_its_turn():
    items = prefetch_map([1, 2].__getitem__, [0, 1, 2, 0], workers=2)
    assert [next(items), next(items)] == [1, 2]
    with pytest.raises(IndexError):
        next(items)
