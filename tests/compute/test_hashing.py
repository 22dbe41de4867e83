import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ratchet.compute.hashing import dense_rank, is_in_sorted, sorted_unique, splitmix64


@given(st.lists(st.integers(0, 2**64 - 1)))
def test_distinct_numbers_are_each_there_once_in_order(numbers: list[int]):
    assert sorted_unique(np.array(numbers, dtype=np.uint64)).tolist() == sorted(set(numbers))


@given(st.lists(st.integers(0, 50)))
def test_renumbering_tells_the_same_numbers_apart(numbers: list[int]):
    known, places = dense_rank(np.array(numbers, dtype=np.int64))
    assert known.tolist() == sorted(set(numbers))
    assert known[places].tolist() == numbers


@given(st.lists(st.integers(0, 2**64 - 1), unique=True))
def test_mixing_keeps_different_numbers_different(numbers: list[int]):
    assert len(set(splitmix64(np.array(numbers, dtype=np.uint64)).tolist())) == len(numbers)


@given(st.lists(st.integers(0, 30)), st.lists(st.integers(0, 30)))
def test_what_is_known_is_found(numbers: list[int], known: list[int]):
    found = is_in_sorted(np.array(numbers, dtype=np.uint64), sorted_unique(np.array(known, dtype=np.uint64)))
    assert found.tolist() == [number in known for number in numbers]
