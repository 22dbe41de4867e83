import threading
from collections.abc import Iterator

import pytest

from ratchet.ahead import one_ahead


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
