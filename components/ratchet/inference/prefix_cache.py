"""Cache the keys and values of each adapter's last prompt, so that a shared beginning is not computed again.

Chats begin with the same system message. Keys and values differ between adapters, so each has its own entry.
"""

from collections.abc import Sequence
from itertools import takewhile
from typing import Protocol

import torch
from torch import Tensor
from transformers import DynamicCache

MAX_TOKENS = 256  # cached tokens of a prompt: 12 MB for the embedded model


class Asked(Protocol):
    """A prompt and the adapter that it is for."""

    @property
    def prompt(self) -> Sequence[int]: ...
    @property
    def adapter(self) -> str | None: ...


class Prefixes:
    """The cached prefixes by adapter. A name must mean the same weights until `forget`."""

    def __init__(self) -> None:
        self._read: dict[str | None, tuple[tuple[int, ...], list[tuple[Tensor, Tensor]]]] = {}

    def length(self, rows: Sequence[Asked]) -> int:
        """Return the number of leading tokens that are cached for every one of these prompts."""
        lengths = []
        for row in rows:
            read = self._read[row.adapter][0] if row.adapter in self._read else ()
            # Without the last token: its logits choose the answer's first.
            pairs = zip(read, row.prompt[:-1], strict=False)
            lengths.append(sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs)))
        return min(lengths)

    def fill(self, cache: DynamicCache, rows: Sequence[Asked], length: int) -> None:
        """Put the keys and values of the first `length` tokens into an empty cache."""
        if not length:
            return
        read = [self._read[row.adapter][1] for row in rows]
        for layer in range(len(read[0])):
            keys, values = (torch.cat([row[layer][part][:, :, :length] for row in read]) for part in (0, 1))
            cache.update(keys, values, layer)

    def remember(self, rows: Sequence[Asked], cache: DynamicCache, mask: Tensor) -> None:
        """Store one prompt per adapter; `mask` (rows, columns) is 0 at the cache's padding."""
        for adapter, row in {asked.adapter: row for row, asked in enumerate(rows)}.items():
            columns = mask[row].nonzero()[:MAX_TOKENS, 0]
            layers = [
                (layer.keys[row, :, columns][None], layer.values[row, :, columns][None]) for layer in cache.layers
            ]
            self._read[adapter] = tuple(rows[row].prompt[:MAX_TOKENS]), layers

    def forget(self, adapter: str) -> None:
        self._read.pop(adapter, None)
