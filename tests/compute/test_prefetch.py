import threading
from collections.abc import Iterator
from queue import Queue

import pytest

from ratchet.compute.prefetch import made_ahead, one_ahead


@pytest.mark.parametrize("num", [0, 1, 5])
def test_the_same_items_in_the_same_order(num: int):
    assert list(one_ahead(iter(range(num)))) == list(range(num))


def test_the_next_item_is_made_before_this_one_is_done():
    is_made = threading.Event()

    def two() -> Iterator[int]:
        yield 1
        is_made.set()
        yield 2

    items = one_ahead(two())
    assert next(items) == 1
    assert is_made.wait(timeout=60)
    assert list(items) == [2]


def test_a_fault_is_raised_where_it_would_have_been():
    def broken() -> Iterator[int]:
        yield 1
        raise OSError("No space left on device")

    items = one_ahead(broken())
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

    assert list(made_ahead(slow_first, range(num), makers=2)) == [item * item for item in range(num)]


def test_no_more_is_made_than_may_be_in_memory():
    made: Queue[int] = Queue()
    items = made_ahead(made.put, range(20), makers=3)
    next(items)
    assert {made.get(timeout=60) for _ in range(4)} == {0, 1, 2, 3}
    assert made.empty()
    assert len(list(items)) == 19


def test_a_fault_in_the_making_is_raised_in_its_turn():
    items = made_ahead([1, 2].__getitem__, [0, 1, 2, 0], makers=2)
    assert [next(items), next(items)] == [1, 2]
    with pytest.raises(IndexError):
        next(items)
