"""From dataset rows to tensors: tokenise, leave out what cannot be trained on, group by length, pad on the right."""

import json
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypedDict

import torch
from torch import Tensor

from ratchet.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

DROPS = ("empty", "too_long", "over_max_rows")
GROUPED_STEPS = 8  # rows of so many optimiser steps are sorted by length together: most of the padding goes


@dataclass(frozen=True, kw_only=True)
class Row:
    """One prompt and its completions as token ids: one for SFT, (chosen, rejected) for DPO."""

    prompt: list[int]
    completions: tuple[list[int], ...]
    weight: float
    flip_probability: float = 0.0
    reference: tuple[float, ...] = ()
    """Log-probability of each completion under the reference policy, once it is known."""

    @property
    def length(self) -> int:
        return len(self.prompt) + max(map(len, self.completions))

    @property
    def num_tokens(self) -> int:
        return sum(len(self.prompt) + len(completion) for completion in self.completions)


@dataclass(frozen=True)
class Selection:
    """Rows to train on, and how many were left out for which of `DROPS`."""

    rows: list[Row] = field(default_factory=list)
    drops: dict[str, int] = field(default_factory=dict)


def sft_rows(table: Iterable[Mapping[str, Any]], tokenizer: "PreTrainedTokenizerBase") -> list[Row | None]:
    """Rows of `{messages, weight}`; None where an answer is empty."""
    rows: list[Row | None] = []
    for record in table:
        *prompt, answer = json.loads(record["messages"])
        rows.append(_row(prompt, {answer["content"]: True}, record["weight"], 0.0, tokenizer))
    return rows


def dpo_rows(table: Iterable[Mapping[str, Any]], tokenizer: "PreTrainedTokenizerBase") -> list[Row | None]:
    """Rows of a DPO file; None where an answer is empty.

    An answer that the length limit cut off (`chosen_ends`, `rejected_ends`) has no end of turn to learn.
    """
    return [
        _row(
            json.loads(record["prompt"]),
            {record[side]: record[f"{side}_ends"] for side in ("chosen", "rejected")},
            record["weight"],
            record["flip_probability"],
            tokenizer,
        )
        for record in table
    ]


def _row(
    messages: list[dict[str, Any]],
    answers: dict[str, bool],
    weight: float,
    flip_probability: float,
    tokenizer: "PreTrainedTokenizerBase",
) -> Row | None:
    if not all(answer.strip() for answer in answers):
        return None
    prompt = _render(tokenizer, messages, add_generation_prompt=True)
    return Row(
        prompt=_encode(tokenizer, prompt),
        completions=tuple(
            completion_ids(tokenizer, messages, prompt, answer, ends=ends) for answer, ends in answers.items()
        ),
        weight=weight,
        flip_probability=flip_probability,
    )


def completion_ids(
    tokenizer: "PreTrainedTokenizerBase", messages: list[dict[str, Any]], prompt: str, answer: str, *, ends: bool = True
) -> list[int]:
    """What the model has to say after `prompt`: the answer as the chat template writes it, up to its end of turn.

    With `ends` false the answer broke off, and its end of turn is left out.

    Encoded apart from the prompt, as a server meets it: no token spans the two.
    """
    text = _render(tokenizer, [*messages, {"role": "assistant", "content": answer}], add_generation_prompt=False)
    if not text.startswith(prompt):
        raise UserError(
            "the base model's chat template rewrites the prompt once the answer is there, so that prompt and answer "
            "cannot be told apart; set a template that only appends"
        )
    end = tokenizer.eos_token_id
    ids = _encode(tokenizer, text.removeprefix(prompt))
    while ids and ids[-1] != end and not tokenizer.decode(ids[-1:]).strip():
        ids.pop()  # templates put a newline after the end of turn, which no server generates
    said = ids[:-1] if ids[-1] == end else ids
    return [*said, end] if ends else said


def _render(
    tokenizer: "PreTrainedTokenizerBase", messages: list[dict[str, Any]], *, add_generation_prompt: bool
) -> str:
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=add_generation_prompt))


def _encode(tokenizer: "PreTrainedTokenizerBase", text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def select(rows: Sequence[Row | None], *, max_tokens: int, max_rows: int | None) -> Selection:
    """Rows that fit: long prompts lose their beginning, rows without room for a prompt go, then the lightest go."""
    drops = Counter({reason: 0 for reason in DROPS})
    kept: list[Row] = []
    for row in rows:
        if row is None:
            drops["empty"] += 1
        elif (room := max_tokens - max(map(len, row.completions))) < 1:
            drops["too_long"] += 1
        else:
            kept.append(replace(row, prompt=row.prompt[-room:]))
    if max_rows is not None and len(kept) > max_rows:
        drops["over_max_rows"] = len(kept) - max_rows
        heaviest = sorted(range(len(kept)), key=lambda index: (-kept[index].weight, index))[:max_rows]
        kept = [kept[index] for index in sorted(heaviest)]
    return Selection(kept, {reason: count for reason, count in drops.items() if count})


def plan(lengths: Sequence[int], *, batch_rows: int, micro_rows: int, epochs: float, seed: int) -> list[list[int]]:
    """Micro-batches of row indices for the whole training, in order, rows of like length together.

    Every optimiser step takes the same number of micro-batches, `ceil(batch_rows / micro_rows)`; only the last may
    take fewer. Equal arguments give equal plans.
    """
    draw = random.Random(seed)
    order: list[int] = []
    wanted = round(len(lengths) * epochs)
    while len(order) < wanted:
        order += draw.sample(range(len(lengths)), len(lengths))
    steps: list[list[int]] = []
    for window in _chunks(order[:wanted], batch_rows * GROUPED_STEPS):
        grouped = _chunks(sorted(window, key=lambda index: (-lengths[index], index)), batch_rows)
        short = grouped.pop() if len(grouped[-1]) < batch_rows else None
        draw.shuffle(grouped)
        steps += grouped if short is None else [*grouped, short]
    return [micro for step in steps for micro in _chunks(step, micro_rows)]


def _chunks(items: list[int], size: int) -> list[list[int]]:
    return [items[start : start + size] for start in range(0, len(items), size)]


class Batch(TypedDict):
    """Sequences padded on the right, row by row: a causal model never looks there, so there is no mask."""

    input_ids: Tensor
    """[sequences, tokens]"""
    predicts: Tensor
    """[sequences, tokens], true where the state predicts a completion token."""
    targets: Tensor
    """[n], those tokens, in the order in which `predicts` selects."""
    lengths: list[int]
    """Completion tokens of each sequence; they sum to n."""
    weights: Tensor
    """[rows]"""
    flips: Tensor
    """[rows]"""
    reference: Tensor
    """[rows, completions], or [rows, 0] where there is none."""
    num_tokens: int


def collate(rows: Sequence[Row], pad_id: int) -> Batch:
    sequences = [(row.prompt, completion) for row in rows for completion in row.completions]
    width = max(len(prompt) + len(completion) for prompt, completion in sequences)
    input_ids = torch.full((len(sequences), width), pad_id)
    predicts = torch.zeros((len(sequences), width), dtype=torch.bool)
    for index, (prompt, completion) in enumerate(sequences):
        end = len(prompt) + len(completion)
        input_ids[index, :end] = torch.tensor(prompt + completion)
        predicts[index, len(prompt) - 1 : end - 1] = True
    return {
        "input_ids": input_ids,
        "predicts": predicts,
        "targets": torch.tensor([token for _, completion in sequences for token in completion]),
        "lengths": [len(completion) for _, completion in sequences],
        "weights": torch.tensor([row.weight for row in rows]),
        "flips": torch.tensor([row.flip_probability for row in rows]),
        "reference": torch.tensor([row.reference for row in rows]),
        "num_tokens": sum(row.num_tokens for row in rows),
    }
