"""Arrays of numbers by the million: mixed, made distinct, numbered anew. The same on any machine. Pure."""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Hashes = NDArray[np.uint64]
    Numbers = NDArray[np.int64]


def splitmix64(numbers: "Hashes") -> "Hashes":
    """Every bit of the result depends on every bit: SplitMix64's finaliser (Steele, Lea and Flood, OOPSLA 2014)."""
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))


def sorted_unique(numbers: "Hashes") -> "Hashes":
    """Each number once, sorted. NumPy's own hashes them first, which takes three times as long."""
    ordered = np.sort(numbers)
    return ordered[np.append(True, ordered[1:] != ordered[:-1])] if len(ordered) else ordered


def dense_rank(numbers: "Numbers") -> tuple["Numbers", "Numbers"]:
    """The distinct ones among small numbers, sorted; and the place of each number among them."""
    is_there = np.zeros(int(numbers.max(initial=-1)) + 1, dtype=np.bool_)
    is_there[numbers] = True
    return np.flatnonzero(is_there), (np.cumsum(is_there) - 1)[numbers]


def is_in_sorted(numbers: "Hashes", known: "Hashes") -> "NDArray[np.bool_]":
    """Which of the numbers are known; `known` is sorted. They are looked up in order, which spares the cache."""
    found = np.zeros(len(numbers), dtype=np.bool_)
    if len(known):
        order = np.argsort(numbers)
        place = np.searchsorted(known, numbers[order])
        found[order] = known[np.minimum(place, len(known) - 1)] == numbers[order]
    return found
