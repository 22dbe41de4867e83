"""Divide rows among optimiser steps and forward passes, and lay each pass out as tensors.

Packed: the rows of a pass follow each other in one line without padding, and a row's prompt is there once for all its
completions. Padded: every completion is a line of its own, after its own copy of the prompt.
"""

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypedDict

import torch
from torch import Tensor

from ratchet.config import Packing
from ratchet.training.tokenization import TokenizedRow

WINDOW_ROWS = 512  # rows packed together where order does not matter; first fit is quadratic in their number
GROUPED_STEPS = 8  # padded lines: optimiser steps whose rows are sorted by length together


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The layout of rows as lines of tokens."""

    packing: Packing
    pass_tokens: int
    """Most tokens in a forward pass; a longer row gets a pass to itself."""
    pad_id: int
    multiple: int = 1
    """Each line is padded to a multiple of this many tokens."""


def num_computed(row: TokenizedRow, packing: Packing) -> int:
    """Return the tokens that a row costs in a forward pass, without its share of the padding."""
    if packing == "shared":
        return row.num_distinct
    return row.num_tokens if packing == "separate" else row.length * len(row.completions)


def plan(
    rows: Sequence[TokenizedRow], *, batch_rows: int, epochs: float, seed: int, layout: Layout
) -> list[list[list[int]]]:
    """Return the optimiser steps in order, each a list of forward passes, each a list of row indices.

    Every step takes `batch_rows` rows; only the last may take fewer. Equal arguments give equal plans.
    """
    draw = random.Random(seed)
    order: list[int] = []
    num_drawn = round(len(rows) * epochs)
    while len(order) < num_drawn:
        order += draw.sample(range(len(rows)), len(rows))
    sizes = [num_computed(row, layout.packing) for row in rows]
    if layout.packing == "off":
        return [
            _fill(step, sizes, layout.pass_tokens)
            for step in _steps_by_length(order[:num_drawn], sizes, batch_rows, draw)
        ]
    return [_pack(step, sizes, layout.pass_tokens) for step in _chunks(order[:num_drawn], batch_rows)]


def first_passes(steps: Sequence[Sequence[list[int]]]) -> list[list[int]]:
    """Return the passes of a plan in which some row occurs for the first time."""
    seen: set[int] = set()
    first = []
    for chosen in (chosen for step in steps for chosen in step):
        if not seen.issuperset(chosen):
            first.append(chosen)
            seen.update(chosen)
    return first


def passes(rows: Sequence[TokenizedRow], layout: Layout) -> list[list[int]]:
    """Divide the rows, each once, among few forward passes; each pass is a list of row indices."""
    sizes = [num_computed(row, layout.packing) for row in rows]
    order = sorted(range(len(rows)), key=lambda index: (-sizes[index], index))
    divide = _fill if layout.packing == "off" else _pack
    return [chosen for window in _chunks(order, WINDOW_ROWS) for chosen in divide(window, sizes, layout.pass_tokens)]


def _pack(step: list[int], sizes: list[int], capacity: int) -> list[list[int]]:
    """Pack rows by first-fit decreasing: at most 11/9 of the fewest passes possible (Johnson, 1973)."""
    passes: list[list[int]] = []
    room: list[int] = []
    for index in sorted(step, key=lambda index: (-sizes[index], index)):
        place = next((number for number, left in enumerate(room) if left >= sizes[index]), len(passes))
        if place == len(passes):
            passes.append([])
            room.append(capacity)
        passes[place].append(index)
        room[place] -= sizes[index]
    return passes


def _steps_by_length(order: list[int], sizes: list[int], batch_rows: int, draw: random.Random) -> Iterator[list[int]]:
    """Yield steps whose rows are of similar length, longest first; steps are shuffled within a window of them."""
    for window in _chunks(order, batch_rows * GROUPED_STEPS):
        steps = _chunks(sorted(window, key=lambda index: (-sizes[index], index)), batch_rows)
        short = steps.pop() if len(steps[-1]) < batch_rows else None
        draw.shuffle(steps)
        yield from steps if short is None else [*steps, short]


def _fill(step: list[int], sizes: list[int], capacity: int) -> list[list[int]]:
    """Divide rows, sorted from long to short, into passes that are padded to their first row."""
    passes = [[step[0]]]
    for index in step[1:]:
        if sizes[passes[-1][0]] * (len(passes[-1]) + 1) > capacity:
            passes.append([])
        passes[-1].append(index)
    return passes


def _chunks(items: list[int], size: int) -> list[list[int]]:
    return [items[start : start + size] for start in range(0, len(items), size)]


class PackedBatch(TypedDict):
    """The rows of one forward pass as tensors."""

    input_ids: Tensor
    """[lines, tokens]"""
    position_ids: Tensor
    """[lines, tokens]; they restart at 0 with each row, and at the prompt's length with each completion."""
    segments: list[Tensor]
    """For each row of a packed line: 0 at the prompt's tokens, then the completion's number; empty if padded."""
    predicts: Tensor
    """[n] indices into the flattened lines whose hidden states predict a completion token."""
    targets: Tensor
    """[n], those completion tokens."""
    lengths: list[int]
    """Tokens of each completion, row by row; they sum to n."""
    weights: Tensor
    """[rows]"""
    flips: Tensor
    """[rows]"""
    labels: Tensor
    """[rows], 1 for a liked answer and -1 for a disliked one."""
    reference: Tensor
    """[rows, completions] summed log-probabilities under the reference; [rows, 0] without a reference."""
    num_tokens: int
    """Distinct tokens: each prompt once, each completion once."""


def collate(rows: Sequence[TokenizedRow], layout: Layout) -> PackedBatch:
    """Return the tensors of one forward pass over `rows`."""
    if layout.packing == "shared":
        blocks = [_block(row.prompt, row.completions) for row in rows]
    else:  # each completion follows a copy of the prompt
        blocks = [_block(row.prompt, (completion,)) for row in rows for completion in row.completions]
    is_padded = layout.packing == "off"
    input_ids, position_ids, predicts = _line_tensors([[block] for block in blocks] if is_padded else [blocks], layout)
    completions = [completion for row in rows for completion in row.completions]
    return {
        "input_ids": input_ids,
        "position_ids": position_ids,
        "segments": [] if is_padded else [torch.tensor(block.segments) for block in blocks],
        "predicts": predicts,
        "targets": torch.tensor([token for completion in completions for token in completion]),
        "lengths": list(map(len, completions)),
        "weights": torch.tensor([row.weight for row in rows]),
        "flips": torch.tensor([row.flip_probability for row in rows]),
        "labels": torch.tensor([1.0 if row.is_good else -1.0 for row in rows]),
        "reference": torch.tensor([row.reference for row in rows]),
        "num_tokens": sum(row.num_distinct for row in rows),
    }


class _Block(NamedTuple):
    """A prompt followed by the completions that share it, token by token.

    `predicts`: offsets in the block whose states predict a completion token. `segments`: 0 at the prompt, then the
    completion's number.
    """

    ids: list[int]
    positions: list[int]
    predicts: list[int]
    segments: list[int]


def _block(prompt: list[int], completions: tuple[list[int], ...]) -> _Block:
    ids, positions, segments = list(prompt), list(range(len(prompt))), [0] * len(prompt)
    predicts: list[int] = []
    for segment, completion in enumerate(completions, start=1):
        predicts += [len(prompt) - 1, *range(len(ids), len(ids) + len(completion) - 1)]
        ids += completion
        positions += range(len(prompt), len(prompt) + len(completion))
        segments += [segment] * len(completion)
    return _Block(ids, positions, predicts, segments)


def _line_tensors(lines: Sequence[Sequence[_Block]], layout: Layout) -> tuple[Tensor, Tensor, Tensor]:
    """Return ids and positions, [lines, width] each, and the flat indices that predict completion tokens."""
    longest = max(sum(len(block.ids) for block in line) for line in lines)
    width = math.ceil(longest / layout.multiple) * layout.multiple
    input_ids = torch.full((len(lines), width), layout.pad_id)
    position_ids = torch.zeros_like(input_ids)
    predicts: list[int] = []
    for number, line in enumerate(lines):
        start = 0
        for block in line:
            end = start + len(block.ids)
            input_ids[number, start:end] = torch.tensor(block.ids)
            position_ids[number, start:end] = torch.tensor(block.positions)
            predicts += [number * width + start + offset for offset in block.predicts]
            start = end
    return input_ids, position_ids, torch.tensor(predicts)
