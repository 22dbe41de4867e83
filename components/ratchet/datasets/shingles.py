"""Hash texts to sets of shingles (words, and runs of three words), a whole column at a time.

NumPy hashes the bytes in place, one pass over the column for each operation, so that no text is split into Python or
Polars strings: six times as fast as extracting words by a regular expression.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pyarrow as pa

from ratchet.compute.hashing import splitmix64

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Hashes = NDArray[np.uint64]
    Numbers = NDArray[np.int64]

SHINGLE_WORDS = 3
SHORT_WORDS = 8  # a text with fewer words has too few shingles to compare: one changed word would touch half of them
# These scripts do not separate words, so each sign counts as a word.
SIGNS = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]"
BASE = np.uint64(0x9E3779B97F4A7C15)  # odd, so that it has an inverse modulo 2**64
INVERSE = np.uint64(pow(int(BASE), -1, 2**64))
STRIDE = 8
SLICE_TEXTS = 1 << 16  # eight numbers a byte are held while they are hashed
MASKS = np.array([(1 << 8 * size) - 1 for size in range(STRIDE + 1)], dtype=np.uint64)


# Byte translation: itself, in lower case, if it belongs to a word; 0 if it separates words.
WORDS = bytes(byte if byte > 127 or chr(byte).isalnum() or chr(byte) == "_" else 0 for byte in range(256)).lower()
TOKENS = bytes(0 if byte < 128 and chr(byte).isspace() else byte for byte in range(256))


@dataclass(frozen=True)
class Sets:
    """Sets of numbers by text, as one array: those of text n are `items[starts[n]:starts[n + 1]]`."""

    items: "Hashes"
    starts: "Numbers"

    @property
    def sizes(self) -> "Numbers":
        return np.diff(self.starts)

    @property
    def owners(self) -> "Numbers":
        return np.repeat(np.arange(len(self.starts) - 1), self.sizes)


def shingles(texts: pl.Series) -> tuple[Sets, "Numbers"]:
    """Return the shingles of each text, repeats included, and its number of words.

    Shingles are runs of three words; for a text of fewer than `SHORT_WORDS` words, its words. Words are runs of
    letters, digits and marks, compared without case and in Unicode NFC; in scripts without spaces, single signs.
    """
    words = hash_words(folded(texts), WORDS)
    sizes = words.sizes
    is_long = np.repeat(sizes >= SHORT_WORDS, sizes)
    runs = words.items.copy()
    runs[:-2] += words.items[1:-1] * np.uint64(0x2545F4914F6CDD1D) + words.items[2:] * np.uint64(0x9FB21C651E98DF25)
    position = np.arange(len(words.items)) - np.repeat(words.starts[:-1], sizes)
    is_run = position <= np.repeat(sizes, sizes) - SHINGLE_WORDS
    items = splitmix64(np.where(is_long, runs, words.items))[~is_long | is_run]
    num_items = np.where(sizes >= SHORT_WORDS, sizes - SHINGLE_WORDS + 1, sizes)
    return Sets(items, np.concatenate([[0], np.cumsum(num_items)])), sizes


def folded(texts: pl.Series) -> pl.Series:
    """Normalize texts: NFC, lower case, and spaces in place of non-ASCII characters that belong to no word."""
    is_wide = texts.str.len_bytes() != texts.str.len_chars()
    if not is_wide.any():
        return texts
    wide = texts.filter(is_wide).str.normalize("NFC").str.to_lowercase()
    wide = wide.str.replace_all(r"[^\w]+", " ").str.replace_all(SIGNS, " $0 ")
    place = (is_wide.cast(pl.Int64).cum_sum() - 1).clip(0)
    return wide.gather(place).zip_with(is_wide, texts)


def hash_words(texts: pl.Series, letters: bytes) -> Sets:
    """Return a hash of every word of every text, in order; stable across versions and machines."""
    data, offsets = text_bytes(texts + "\n")  # so that no word runs on into the next text
    signs = np.frombuffer(b"\0" + data.tobytes().translate(letters) + bytes(STRIDE), dtype=np.uint8)
    is_letter = signs != 0
    edges = np.flatnonzero(is_letter[1:] != is_letter[:-1]) + 1
    first, last = edges[0::2], edges[1::2]
    return Sets(_hash_spans(signs, first, last - first), np.searchsorted(first, offsets + 1))


def _hash_spans(signs: "NDArray[np.uint8]", first: "Numbers", sizes: "Numbers") -> "Hashes":
    """Hash each span's bytes, eight at a time, all spans at once. No byte is 0; `STRIDE` more follow the last span."""
    eights = np.ndarray(len(signs) - STRIDE + 1, "<u8", signs.data, strides=(1,))  # of every place, unaligned
    hashes = splitmix64(eights[first] & MASKS[np.minimum(sizes, STRIDE)])
    left = np.flatnonzero(sizes > STRIDE)
    for done in range(STRIDE, int(sizes.max(initial=0)), STRIDE):
        left = left[sizes[left] > done]
        within = eights[first[left] + done] & MASKS[np.minimum(sizes[left] - done, STRIDE)]
        hashes[left] = splitmix64(hashes[left] ^ within)
    return hashes


def stable_hash(texts: pl.Series) -> "Hashes":
    """Return a 64-bit hash of each text that may be stored; Polars' own changes between versions."""
    parts = [_whole_hashes(chunk) for chunk in texts.to_frame().iter_slices(SLICE_TEXTS)]
    return np.concatenate(parts or [np.zeros(0, dtype=np.uint64)])


def _whole_hashes(frame: pl.DataFrame) -> "Hashes":
    data, offsets = text_bytes(frame.to_series())
    sizes = np.diff(offsets)
    hashes = np.zeros(len(sizes), dtype=np.uint64)
    if len(data):
        is_there = sizes > 0
        first = offsets[:-1][is_there]
        signs = data.astype(np.uint64) + np.uint64(1)
        sums = np.add.reduceat(signs * powers(BASE, len(data)), first)
        hashes[is_there] = sums * powers(INVERSE, len(data))[first]
    return splitmix64(hashes)


def text_bytes(texts: pl.Series) -> tuple["NDArray[np.uint8]", "Numbers"]:
    """Return the UTF-8 of all texts in one array, and each text's start. Nulls are not allowed."""
    array = texts.rechunk().to_arrow(compat_level=pl.CompatLevel.oldest()).cast(pa.large_string())
    _, offsets, data = array.buffers()
    places = np.frombuffer(offsets, dtype=np.int64)[array.offset : array.offset + len(array) + 1]
    if not len(places):
        places = np.zeros(1, dtype=np.int64)
    whole = np.frombuffer(data, dtype=np.uint8) if data is not None else np.zeros(0, dtype=np.uint8)
    return whole[places[0] : places[-1]], places - places[0]


_known_powers: dict[int, "Hashes"] = {}


def powers(base: np.uint64, count: int) -> "Hashes":
    """Return base**0 … base**(count - 1), modulo 2**64. The longest result for each base is cached."""
    known = _known_powers.get(int(base))
    if known is None or len(known) < count:
        steps = np.full(max(count, 1 << 16), base, dtype=np.uint64)
        steps[0] = 1
        known = _known_powers[int(base)] = np.multiply.accumulate(steps)
    return known[:count]
