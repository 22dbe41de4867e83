"""Find all near-duplicate texts; a million take a few seconds.

Two texts are near if their shingles (`ratchet.datasets.shingles`) have Jaccard similarity of a threshold t or more.
MinHash would miss some, and here a miss is a leak, so both halves of the search are exact (except for collisions
of 43-bit hashes, which can only join texts, not part them):

- Long texts by prefix filtering (Bayardo, Ma and Srikant, WWW 2007): order each set's shingles by any one order of
  all shingles; two near sets share one among the first |x| - ceil(t|x|) + 1. Rarest first, as counted on a sample,
  leaves few candidates. Pairs that are connected already are not compared again. Most others differ in so many bits of
  their signatures that they cannot be near (Sandes, Teodoro and Melo, 2020); the shingles of the rest are counted.
- Short texts, whose sets have fewer than eight words, by what they must share: sets of a and b words are near exactly
  if they have ceil(t(a + b) / (1 + t)) words in common, and all subsets of that size can be written out.
"""

import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations, pairwise
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from ratchet.compute.hashing import dense_rank, sorted_unique, splitmix64
from ratchet.datasets.shingles import SHORT_WORDS, Sets, shingles

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ratchet.datasets.shingles import Hashes, Numbers

    Pairs = NDArray[np.int64]  # one row a pair, two columns
    Labels = NDArray[np.int32]

CHUNK_BYTES = 4 << 20  # of text at once: more falls out of the cache
CHUNK_TEXTS = 1 << 16  # a text's number takes 16 bits, which leaves 48 for a shingle
HASH_BITS, TEXT_BITS = 43, 26
SAMPLE_TEXTS = 1 << 13
RARITY_BITS = 18
PAIR_BITS = 20
EPSILON = 1e-9  # keeps ceil() of a product that is whole from going up


def near_duplicates(texts: pl.Series, threshold: float, *, within: "Hashes | None" = None) -> "Pairs":
    """Return [pairs, 2] indices whose connected components are those of all near pairs; each returned pair is near.

    `threshold` is the Jaccard similarity. With `within`, a number for each text, only texts of equal number are
    compared. Nulls are not allowed.
    """
    return np.concatenate([_wordless(texts, within), *_near(texts, threshold, within)])


def components(num_nodes: int, pairs: "Pairs") -> "Labels":
    """Return the connected component of each node, numbered from 0."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    edges = (np.ones(len(pairs), dtype=np.int8), (pairs[:, 0], pairs[:, 1]))
    labels: Labels = connected_components(coo_array(edges, shape=(num_nodes, num_nodes)), directed=False)[1]
    return labels


def _near(texts: pl.Series, threshold: float, within: "Hashes | None") -> Iterator["Pairs"]:
    rarity = _rarity(texts)
    chunks = _chunks(texts)

    def read(chunk: tuple[int, int]) -> tuple["Hashes", "Pairs"]:
        first, last = chunk
        sets = _distinct(texts[first:last], None if within is None else within[first:last], rarity)
        is_short = np.zeros(len(sets.starts) - 1, dtype=np.bool_)
        has_items = sets.sizes > 0
        is_short[has_items] = (sets.items[sets.starts[:-1][has_items]] & SHORT) != 0
        return _prefixes(sets, first, threshold, ~is_short), _subsets(sets, first, threshold, is_short)

    with ThreadPoolExecutor(pl.thread_pool_size()) as pool:
        parts = list(pool.map(read, chunks))
    yield _link_subsets(np.concatenate([subsets for _, subsets in parts] or [_none()]))
    prefixes = np.concatenate([prefixes for prefixes, _ in parts] or [np.zeros(0, dtype=np.uint64)])
    yield from _verify(texts, within, threshold, prefixes)


def _chunks(texts: pl.Series) -> list[tuple[int, int]]:
    ends = np.cumsum(texts.str.len_bytes().to_numpy().astype(np.int64))
    edges = [0]
    while edges[-1] < len(texts):
        done = ends[edges[-1] - 1] if edges[-1] else 0
        full = int(np.searchsorted(ends, done + CHUNK_BYTES))
        edges.append(min(max(full, edges[-1] + 1), edges[-1] + CHUNK_TEXTS, len(texts)))
    return list(pairwise(edges))


def _rarity(texts: pl.Series) -> "Hashes":
    """Return the log2 frequency of shingles on a sample, by the low bits of a shingle."""
    step = max(1, len(texts) // SAMPLE_TEXTS)
    items = shingles(texts.gather_every(step))[0].items
    counts = np.bincount((items & np.uint64((1 << RARITY_BITS) - 1)).astype(np.int64), minlength=1 << RARITY_BITS)
    return np.ceil(np.log2(counts + 1)).astype(np.uint64)


SHORT = np.uint64(1 << (HASH_BITS - 1))
"""This bit marks shingles that are words of a short text, so that they match none of a long text."""


def _distinct(texts: pl.Series, within: "Hashes | None", rarity: "Hashes") -> Sets:
    """Return each text's set of shingles as sorted numbers, rarest first."""
    hashed, num_words = shingles(texts)
    items, owners = hashed.items, hashed.owners
    common = rarity[(items & np.uint64((1 << RARITY_BITS) - 1)).astype(np.int64)]
    if within is not None:
        items = splitmix64(items ^ within[owners])
    is_short = (num_words < SHORT_WORDS)[owners]
    hashes = np.where(
        is_short, (items >> np.uint64(64 - HASH_BITS)) | SHORT, (items >> np.uint64(64 - HASH_BITS)) & ~SHORT
    )
    order: Hashes = (owners.astype(np.uint64) << np.uint64(48)) + (common << np.uint64(HASH_BITS))
    packed = sorted_unique(order + hashes)
    starts = np.searchsorted(packed >> np.uint64(48), np.arange(len(texts) + 1, dtype=np.uint64))
    return Sets(packed & np.uint64((1 << 48) - 1), starts)


def _prefixes(sets: Sets, first: int, threshold: float, is_wanted: "NDArray[np.bool_]") -> "Hashes":
    """Return a number for each prefix shingle of each wanted text: shingle in the high bits, text in the low ones."""
    sizes = sets.sizes
    lengths = np.where(is_wanted & (sizes > 0), sizes - np.ceil(threshold * sizes - EPSILON).astype(np.int64) + 1, 0)
    rank = np.arange(len(sets.items)) - np.repeat(sets.starts[:-1], sizes)
    is_prefix = rank < np.repeat(lengths, sizes)
    owners = (sets.owners[is_prefix] + first).astype(np.uint64)
    # Mixed first, since the shift would otherwise keep mostly the top bits, which hold only the rarity.
    return (splitmix64(sets.items[is_prefix]) >> np.uint64(TEXT_BITS) << np.uint64(TEXT_BITS)) | owners


def _subsets(sets: Sets, first: int, threshold: float, is_wanted: "NDArray[np.bool_]") -> "Pairs":
    """Return (subset, text) for every subset of words that makes a short text near to a text of another size.

    A subset is named by the two sizes (4 bits each) and a hash of its words.
    """
    parts = [_none()]
    for size in range(1, SHORT_WORDS):
        texts = np.flatnonzero(is_wanted & (sets.sizes == size))
        if not len(texts):
            continue
        words = splitmix64(sets.items[sets.starts[texts][:, None] + np.arange(size)])
        for other in range(1, SHORT_WORDS):
            small, large = min(size, other), max(size, other)
            shared = math.ceil(threshold * (small + large) / (1 + threshold) - EPSILON)
            for chosen in combinations(range(size), shared) if shared <= small else ():
                names = splitmix64(words[:, chosen].sum(axis=1, dtype=np.uint64)) >> np.uint64(10)
                tagged = (names << np.uint64(8)) | np.uint64(small << 4 | large)
                sided = (tagged.astype(np.int64) << 1) | int(size > other)
                parts.append(np.stack([sided, texts + first], axis=1))
    return np.concatenate(parts)


def _link_subsets(subsets: "Pairs") -> "Pairs":
    """Link texts with a common subset, each to the first text of the other size, or of its own if equal."""
    is_shared = pl.DataFrame({"name": subsets[:, 0] >> 1}).select(pl.len().over("name") > 1).to_series()
    subsets = subsets[is_shared.to_numpy()]  # most are not shared, so fewer are sorted
    subsets = subsets[np.lexsort((subsets[:, 1], subsets[:, 0]))]
    names, side, texts = subsets[:, 0] >> 1, subsets[:, 0] & 1, subsets[:, 1]
    kinds = names & 0xFF
    is_equal = (kinds >> 4) == (kinds & 0xF)
    lower, first = np.unique(subsets[:, 0], return_index=True)
    # With equal sizes all are on side 0 and meet there; with unequal sizes each meets the first on the other side.
    wanted = (names << 1) | np.where(is_equal, 0, 1 - side)
    place = np.searchsorted(lower, wanted)
    is_there = (place < len(lower)) & (lower[np.minimum(place, len(lower) - 1)] == wanted) if len(lower) else place > 0
    links = np.stack([texts[is_there], texts[first[place[is_there]]]], axis=1)
    return np.unique(links[links[:, 0] != links[:, 1]], axis=0)


def _verify(texts: pl.Series, within: "Hashes | None", threshold: float, prefixes: "Hashes") -> Iterator["Pairs"]:
    """Compare texts that share a prefix shingle, neighbours first, until all near texts are connected."""
    prefixes = sorted_unique(prefixes)
    names, owners = prefixes >> np.uint64(TEXT_BITS), (prefixes & np.uint64((1 << TEXT_BITS) - 1)).astype(np.int64)
    is_shared = _group_sizes(names) > 1
    names, owners = names[is_shared], owners[is_shared]
    known, owners = dense_rank(owners)
    sets = _candidates(texts, known, within)
    signatures = _signatures(sets)
    labels = np.arange(len(known), dtype=np.int32)
    near = _none()
    first, last = 1, 8
    while len(names) > first:

        def open_pairs(pairs: "Pairs", labels: "Labels" = labels) -> "Pairs":
            pairs = pairs[_have_near_sizes(sets.sizes, pairs, threshold)]
            pairs = pairs[labels[pairs[:, 0]] != labels[pairs[:, 1]]]
            return pairs[_may_be_near(signatures, sets.sizes, pairs, threshold)]

        pairs = _neighbours(names, owners, range(first, last + 1), open_pairs)
        near = np.concatenate([near, pairs[_is_near(sets, pairs, threshold)]])
        labels = components(len(known), near)
        is_crowded = _group_sizes(names) > last
        names, owners = names[is_crowded], owners[is_crowded]
        first, last = last + 1, last * 2
    yield known[near]


def _group_sizes(names: "Hashes") -> "Numbers":
    """Return how often each of the sorted names occurs."""
    if not len(names):
        return np.zeros(0, dtype=np.int64)
    first = np.flatnonzero(np.append(True, names[1:] != names[:-1]))
    sizes = np.diff(np.append(first, len(names)))
    return np.repeat(sizes, sizes)


def _neighbours(names: "Hashes", owners: "Numbers", apart: range, choose: "Callable[[Pairs], Pairs]") -> "Pairs":
    """Return the distinct pairs of owners of one name, at the distances `apart` in its list, that `choose` keeps.

    `choose` runs for each distance by itself, since it removes nearly all pairs: a common name has many. Texts that
    share one name mostly share several, at the same distance, so pairs are made distinct first.
    """

    def chosen(places: int) -> "Hashes":
        is_pair = names[places:] == names[: len(names) - places]
        here, there = owners[: len(names) - places][is_pair], owners[places:][is_pair]
        return _packed(choose(_unpacked(sorted_unique(((here << 32) | there).view(np.uint64)))))

    with ThreadPoolExecutor(pl.thread_pool_size()) as pool:
        parts = list(pool.map(chosen, range(apart.start, min(apart.stop, len(names)))))
    return _unpacked(sorted_unique(np.concatenate([np.zeros(0, dtype=np.uint64), *parts])))


def _packed(pairs: "Pairs") -> "Hashes":
    packed: Hashes = ((pairs[:, 0] << 32) | pairs[:, 1]).view(np.uint64)
    return packed


def _unpacked(packed: "Hashes") -> "Pairs":
    numbers = packed.view(np.int64)
    return np.stack([numbers >> 32, numbers & 0xFFFFFFFF], axis=1)


def _have_near_sizes(sizes: "Numbers", pairs: "Pairs", threshold: float) -> "NDArray[np.bool_]":
    one, other = sizes[pairs[:, 0]], sizes[pairs[:, 1]]
    is_possible: NDArray[np.bool_] = np.minimum(one, other) >= threshold * np.maximum(one, other) - EPSILON
    return is_possible


def _candidates(texts: pl.Series, known: "Numbers", within: "Hashes | None") -> Sets:
    """Return the sets of the texts that share a shingle with another: few, so they are hashed again, not kept."""
    candidates = texts.gather(known)
    flat = np.zeros(1 << RARITY_BITS, dtype=np.uint64)

    def read(chunk: tuple[int, int]) -> Sets:
        first, last = chunk
        return _distinct(candidates[first:last], None if within is None else within[known[first:last]], flat)

    with ThreadPoolExecutor(pl.thread_pool_size()) as pool:
        parts = list(pool.map(read, _chunks(candidates)))
    sizes = np.concatenate([part.sizes for part in parts] or [np.zeros(0, dtype=np.int64)])
    items = np.concatenate([part.items for part in parts] or [np.zeros(0, dtype=np.uint64)])
    return Sets(items, np.concatenate([[0], np.cumsum(sizes)]))


def _signatures(sets: Sets) -> "Hashes":
    """Return [texts, 2] signatures of 128 bits: each shingle of a text flips one bit."""
    edges = [*range(0, len(sets.starts) - 1, CHUNK_TEXTS), len(sets.starts) - 1]
    with ThreadPoolExecutor(pl.thread_pool_size()) as pool:
        parts = list(pool.map(lambda edge: _some_signatures(sets, *edge), pairwise(edges)))
    return np.concatenate([np.zeros((0, 2), dtype=np.uint64), *parts])


def _some_signatures(sets: Sets, first: int, last: int) -> "Hashes":
    """Return the signatures of texts `first` up to `last`; takes 48 bytes of memory for each shingle meanwhile."""
    starts = sets.starts[first : last + 1]
    places = splitmix64(sets.items[starts[0] : starts[-1]])
    bits = np.uint64(1) << (places & np.uint64(63))
    is_second = (places & np.uint64(64)) != 0
    flips = np.stack([np.where(is_second, 0, bits), np.where(is_second, bits, 0)], axis=1)
    signatures = np.zeros((last - first, 2), dtype=np.uint64)
    has_items = np.diff(starts) > 0
    if has_items.any():
        signatures[has_items] = np.bitwise_xor.reduceat(flips, (starts[:-1] - starts[0])[has_items])
    return signatures


def _may_be_near(signatures: "Hashes", sizes: "Numbers", pairs: "Pairs", threshold: float) -> "NDArray[np.bool_]":
    """Return False only for pairs that are not near: each differing bit needs a shingle that only one text has."""
    one, other = pairs[:, 0], pairs[:, 1]
    differing = np.bitwise_count(signatures[one] ^ signatures[other]).sum(axis=1, dtype=np.int64)
    both = sizes[one] + sizes[other]
    is_possible: NDArray[np.bool_] = differing <= both * (1 - threshold) / (1 + threshold) + EPSILON
    return is_possible


def _is_near(sets: Sets, pairs: "Pairs", threshold: float) -> "NDArray[np.bool_]":
    """Return whether each pair is near, by counting common items."""
    sizes = sets.sizes
    shared = np.zeros(len(pairs), dtype=np.int64)
    for start in range(0, len(pairs), 1 << PAIR_BITS - 4):
        chunk = pairs[start : start + (1 << PAIR_BITS - 4)]
        packed = np.sort(np.concatenate([_pack(sets, chunk[:, side]) for side in (0, 1)]))
        twice = packed[1:][packed[1:] == packed[:-1]] >> np.uint64(64 - PAIR_BITS)
        shared[start : start + len(chunk)] = np.bincount(twice.astype(np.int64), minlength=len(chunk))
    either = sizes[pairs[:, 0]] + sizes[pairs[:, 1]] - shared
    return shared >= threshold * either - EPSILON


def _pack(sets: Sets, texts: "Numbers") -> "Hashes":
    """Return the items of each text, with its index in `texts` in the high bits."""
    sizes = sets.sizes[texts]
    place = np.repeat(np.arange(len(texts)), sizes)
    within = np.arange(len(place)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    items = sets.items[np.repeat(sets.starts[texts], sizes) + within]
    packed: Hashes = (place.astype(np.uint64) << np.uint64(64 - PAIR_BITS)) | items
    return packed


def _wordless(texts: pl.Series, within: "Hashes | None") -> "Pairs":
    """Link texts without words that are equal after stripping white space."""
    has_words = texts.str.contains(r"\w")
    if has_words.all():
        return _none()
    frame = pl.DataFrame({"text": texts, "within": within if within is not None else [0] * len(texts)}).with_row_index()
    alike = frame.filter(~has_words).with_columns(pl.col("text").str.strip_chars())
    first = alike.with_columns(first=pl.col("index").first().over("text", "within"))
    links = first.filter(pl.col("first") != pl.col("index")).select("first", "index")
    return links.to_numpy().astype(np.int64).reshape(-1, 2)


def _none() -> "Pairs":
    return np.zeros((0, 2), dtype=np.int64)
