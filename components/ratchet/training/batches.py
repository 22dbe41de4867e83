"""What each forward pass computes: rows divided among optimiser steps and passes, and laid out as tensors.

Packed, the rows of a pass stand one behind the other in a single line without padding, and a row's prompt stands there
once for all its completions. Padded, every completion is a line of its own, behind its own copy of the prompt.
"""

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypedDict

import torch
from torch import Tensor

from ratchet.config import Packing
from ratchet.training.tokenization import TokenizedRow

WINDOW_ROWS = 512  # packed together where order does not matter; first fit is quadratic in it
GROUPED_STEPS = 8  # where lines are padded, rows of so many optimiser steps are sorted by length together


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How rows become lines of tokens."""

    packing: Packing
    pass_tokens: int
    """Most tokens in a forward pass; a longer row has one to itself."""
    pad_id: int
    multiple: int = 1
    """Lines are padded to a multiple of so many tokens."""


def num_computed(row: TokenizedRow, packing: Packing) -> int:
    """Tokens that a row costs in a forward pass, its share of padding apart."""
    if packing == "shared":
        return row.num_distinct
    return row.num_tokens if packing == "separate" else row.length * len(row.completions)


def plan(
    rows: Sequence[TokenizedRow], *, batch_rows: int, epochs: float, seed: int, layout: Layout
) -> list[list[list[int]]]:
    """Optimiser steps, in order, each a list of forward passes, each a list of row indices.

    Every step takes `batch_rows` rows, only the last may take fewer; equal arguments give equal
    plans.
    """
    draw = random.Random(seed)
    order: list[int] = []
    wanted = round(len(rows) * epochs)
    while len(order) < wanted:
        order += draw.sample(range(len(rows)), len(rows))
    sizes = [num_computed(row, layout.packing) for row in rows]
    if layout.packing == "off":
        return [_fill(step, sizes, layout.pass_tokens) for step in _alike(order[:wanted], sizes, batch_rows, draw)]
    return [_pack(step, sizes, layout.pass_tokens) for step in _chunks(order[:wanted], batch_rows)]


def first_passes(steps: Sequence[Sequence[list[int]]]) -> list[list[int]]:
    """The passes of a plan in which a row has its first turn."""
    seen: set[int] = set()
    found = []
    for chosen in (chosen for step in steps for chosen in step):
        if not seen.issuperset(chosen):
            found.append(chosen)
            seen.update(chosen)
    return found


def passes(rows: Sequence[TokenizedRow], layout: Layout) -> list[list[int]]:
    """Every row once, in few forward passes."""
    sizes = [num_computed(row, layout.packing) for row in rows]
    order = sorted(range(len(rows)), key=lambda index: (-sizes[index], index))
    divide = _fill if layout.packing == "off" else _pack
    return [chosen for window in _chunks(order, WINDOW_ROWS) for chosen in divide(window, sizes, layout.pass_tokens)]


def _pack(step: list[int], sizes: list[int], capacity: int) -> list[list[int]]:
    """First-fit decreasing: at most 11/9 of the fewest passes possible (Johnson, 1973)."""
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


def _alike(order: list[int], sizes: list[int], batch_rows: int, draw: random.Random) -> Iterator[list[int]]:
    """Steps of rows of like length, longest first, in random order within a window of steps."""
    for window in _chunks(order, batch_rows * GROUPED_STEPS):
        steps = _chunks(sorted(window, key=lambda index: (-sizes[index], index)), batch_rows)
        short = steps.pop() if len(steps[-1]) < batch_rows else None
        draw.shuffle(steps)
        yield from steps if short is None else [*steps, short]


def _fill(step: list[int], sizes: list[int], capacity: int) -> list[list[int]]:
    """Passes of rows from long to short, each padded to its first."""
    passes = [[step[0]]]
    for index in step[1:]:
        if sizes[passes[-1][0]] * (len(passes[-1]) + 1) > capacity:
            passes.append([])
        passes[-1].append(index)
    return passes


def _chunks(items: list[int], size: int) -> list[list[int]]:
    return [items[start : start + size] for start in range(0, len(items), size)]


class PackedBatch(TypedDict):
    """The rows of one forward pass."""

    input_ids: Tensor
    """[lines, tokens]"""
    position_ids: Tensor
    """[lines, tokens]; they start anew with each row, and again behind the prompt with each completion."""
    segments: list[Tensor]
    """Of each row of a packed line, 0 for the prompt's tokens, then its completion's number; empty where padded."""
    predicts: Tensor
    """[n] places in the flattened lines whose states predict a completion token."""
    targets: Tensor
    """[n], those tokens."""
    lengths: list[int]
    """Tokens of each completion, row by row; they sum to n."""
    weights: Tensor
    """[rows]"""
    flips: Tensor
    """[rows]"""
    labels: Tensor
    """[rows], 1 for an answer that was liked and -1 for one that was not."""
    reference: Tensor
    """[rows, completions], or [rows, 0] where there is none."""
    num_tokens: int
    """Distinct tokens: each prompt once, each completion once."""


def collate(rows: Sequence[TokenizedRow], layout: Layout) -> PackedBatch:
    packing, multiple = layout.packing, layout.multiple
    blocks = [_block(row.prompt, completions) for row in rows for completions in _together(row, packing)]
    lines = [[block] for block in blocks] if packing == "off" else [blocks]
    width = math.ceil(max(sum(len(ids) for ids, *_ in line) for line in lines) / multiple) * multiple
    input_ids = torch.full((len(lines), width), layout.pad_id)
    position_ids = torch.zeros_like(input_ids)
    predicts: list[int] = []
    for number, line in enumerate(lines):
        start = 0
        for ids, positions, places, _ in line:
            input_ids[number, start : start + len(ids)] = torch.tensor(ids)
            position_ids[number, start : start + len(ids)] = torch.tensor(positions)
            predicts += [number * width + start + place for place in places]
            start += len(ids)
    return {
        "input_ids": input_ids,
        "position_ids": position_ids,
        "segments": [] if packing == "off" else [torch.tensor(segments) for *_, segments in blocks],
        "predicts": torch.tensor(predicts),
        "targets": torch.tensor([token for row in rows for completion in row.completions for token in completion]),
        "lengths": [len(completion) for row in rows for completion in row.completions],
        "weights": torch.tensor([row.weight for row in rows]),
        "flips": torch.tensor([row.flip_probability for row in rows]),
        "labels": torch.tensor([1.0 if row.is_good else -1.0 for row in rows]),
        "reference": torch.tensor([row.reference for row in rows]),
        "num_tokens": sum(row.num_distinct for row in rows),
    }


def _together(row: TokenizedRow, packing: Packing) -> list[tuple[list[int], ...]]:
    """The completions of each block: all of a row's where they share the prompt, else one by one."""
    return [row.completions] if packing == "shared" else [(completion,) for completion in row.completions]


def _block(prompt: list[int], completions: tuple[list[int], ...]) -> tuple[list[int], list[int], list[int], list[int]]:
    """Ids, positions, places whose states predict a completion token, and segments."""
    ids, positions, segments = list(prompt), list(range(len(prompt))), [0] * len(prompt)
    places: list[int] = []
    for segment, completion in enumerate(completions, start=1):
        places += [len(prompt) - 1, *range(len(ids), len(ids) + len(completion) - 1)]
        ids += completion
        positions += range(len(prompt), len(prompt) + len(completion))
        segments += [segment] * len(completion)
    return ids, positions, places, segments
