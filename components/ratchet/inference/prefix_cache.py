"""What was read of earlier prompts, so that of the next only the rest is: chats begin with the same system message.

Of each adapter the prompt that was read last is remembered, as keys and values differ from adapter to adapter.
"""

from collections.abc import Sequence
from itertools import takewhile
from typing import Protocol

import torch
from torch import Tensor
from transformers import DynamicCache

MAX_TOKENS = 256  # remembered of a prompt: 12 MB of the embedded model


class Asked(Protocol):
    """A prompt and the adapter that reads it."""

    @property
    def prompt(self) -> Sequence[int]: ...
    @property
    def adapter(self) -> str | None: ...


class Prefixes:
    """The beginnings of prompts. An adapter's name must stand for the same weights until it is forgotten."""

    def __init__(self) -> None:
        self._read: dict[str | None, tuple[tuple[int, ...], list[tuple[Tensor, Tensor]]]] = {}

    def length(self, rows: Sequence[Asked]) -> int:
        """How many tokens at the beginning of every one of these prompts have been read before."""
        return min(self._length(row) for row in rows)

    def fill(self, cache: DynamicCache, rows: Sequence[Asked], length: int) -> None:
        """Put the keys and values of so many tokens in front of an empty cache."""
        if not length:
            return
        read = [self._read[row.adapter][1] for row in rows]
        for layer in range(len(read[0])):
            keys, values = (torch.cat([row[layer][part][:, :, :length] for row in read]) for part in (0, 1))
            cache.update(keys, values, layer)

    def remember(self, rows: Sequence[Asked], cache: DynamicCache, mask: Tensor) -> None:
        """Keep one prompt of each adapter; `mask` (rows, columns) tells its columns of the cache from padding."""
        for adapter, row in {asked.adapter: row for row, asked in enumerate(rows)}.items():
            columns = mask[row].nonzero()[:MAX_TOKENS, 0]
            layers = [(one.keys[row, :, columns][None], one.values[row, :, columns][None]) for one in cache.layers]
            self._read[adapter] = tuple(rows[row].prompt[:MAX_TOKENS]), layers

    def forget(self, adapter: str) -> None:
        self._read.pop(adapter, None)

    def _length(self, row: Asked) -> int:
        """The last token is read in any case: the logits after it choose the answer's first."""
        read = self._read[row.adapter][0] if row.adapter in self._read else ()
        pairs = zip(read, row.prompt[:-1], strict=False)
        return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
