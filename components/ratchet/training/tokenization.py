"""Tokenise dataset rows as a server would, and select the rows to train on."""

import json
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from ratchet.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

DROPS = ("empty", "too_long", "over_max_rows", "watched")


@dataclass(frozen=True, kw_only=True)
class TokenizedRow:
    """One prompt and its completions as token ids: one for SFT, two for DPO (chosen first) and KTO (see `kto_rows`)."""

    prompt: list[int]
    completions: tuple[list[int], ...]
    weight: float
    flip_probability: float = 0.0
    is_good: bool = True
    """True if a single answer was liked (KTO)."""
    reference: tuple[float, ...] = ()
    """Summed log-probability of each completion under the reference policy; empty before it is computed."""
    group: str = ""
    """Rows of one group may leak each other's content, so held-out pairs take whole groups."""

    @property
    def length(self) -> int:
        return len(self.prompt) + max(map(len, self.completions))

    @property
    def num_tokens(self) -> int:
        """Tokens if every completion follows its own copy of the prompt."""
        return self.num_distinct + (len(self.completions) - 1) * len(self.prompt)

    @property
    def num_distinct(self) -> int:
        """Tokens if the completions share one prompt."""
        return len(self.prompt) + sum(map(len, self.completions))


@dataclass(frozen=True)
class Selection:
    """Rows to train on, and the number of rows dropped for each reason in `DROPS`."""

    rows: list[TokenizedRow] = field(default_factory=list)
    drops: dict[str, int] = field(default_factory=dict)
    watched: list[TokenizedRow] = field(default_factory=list)
    """Held-out rows that decide when to stop; see `hold_out`."""


def sft_rows(table: Iterable[Mapping[str, Any]], tokenizer: "PreTrainedTokenizerBase") -> list[TokenizedRow | None]:
    """Tokenise records of `{messages, weight}`; None for a record with an empty answer."""
    rows: list[TokenizedRow | None] = []
    for record in table:
        *prompt, answer = json.loads(record["messages"])
        rows.append(_row(prompt, [(answer["content"], True)], record["weight"], 0.0, tokenizer))
    return rows


def dpo_rows(table: Iterable[Mapping[str, Any]], tokenizer: "PreTrainedTokenizerBase") -> list[TokenizedRow | None]:
    """Tokenise the records of a DPO file; None for a record with an empty answer.

    An answer that the length limit cut off (`chosen_ends` or `rejected_ends` is false) has no end of turn to learn.
    """
    rows: list[TokenizedRow | None] = []
    for record in table:
        answers = [(record[side], record[f"{side}_ends"]) for side in ("chosen", "rejected")]
        row = _row(json.loads(record["prompt"]), answers, record["weight"], record["flip_probability"], tokenizer)
        rows.append(row and replace(row, group=record.get("group", "")))
    return rows


def kto_rows(table: Iterable[Mapping[str, Any]], tokenizer: "PreTrainedTokenizerBase") -> list[TokenizedRow | None]:
    """Tokenise records of `{prompt, completion, label, weight}`; None for a record with an empty answer.

    Each row's second completion is the next record's answer; only the drift from the reference is measured on it.
    """
    records = list(table)
    rows: list[TokenizedRow | None] = []
    for record, following in zip(records, records[1:] + records[:1], strict=True):
        answers = [(record["completion"], True), (following["completion"], True)]
        row = _row(json.loads(record["prompt"]), answers, record["weight"], 0.0, tokenizer)
        rows.append(row and replace(row, is_good=record["label"]))
    return rows


def _row(
    messages: list[dict[str, Any]],
    answers: list[tuple[str, bool]],
    weight: float,
    flip_probability: float,
    tokenizer: "PreTrainedTokenizerBase",
) -> TokenizedRow | None:
    if not all(answer.strip() for answer, _ in answers):
        return None
    prompt = _render(tokenizer, messages, add_generation_prompt=True)
    return TokenizedRow(
        prompt=_encode(tokenizer, prompt),
        completions=tuple(completion_ids(tokenizer, messages, prompt, answer, ends=ends) for answer, ends in answers),
        weight=weight,
        flip_probability=flip_probability,
    )


def completion_ids(
    tokenizer: "PreTrainedTokenizerBase", messages: list[dict[str, Any]], prompt: str, answer: str, *, ends: bool = True
) -> list[int]:
    """Return the token ids of the answer as the chat template renders it after `prompt`, up to its end of turn.

    With `ends` false the answer was cut off, and its end of turn is left out. Tokenised apart from the prompt, as in
    serving: no token spans the two. Raises UserError for a template that rewrites the prompt.
    """
    text = _render(tokenizer, [*messages, {"role": "assistant", "content": answer}], add_generation_prompt=False)
    if not text.startswith(prompt):
        raise UserError(
            "the base model's chat template rewrites the prompt once the answer is there, so that prompt and answer "
            "cannot be separated; set a template that only appends"
        )
    end = tokenizer.eos_token_id
    ids = _encode(tokenizer, text.removeprefix(prompt))
    while ids and ids[-1] != end and not tokenizer.decode(ids[-1:]).strip():
        ids.pop()  # templates put a newline after the end of turn, which no server generates
    answer_ids = ids[:-1] if ids[-1] == end else ids
    return [*answer_ids, end] if ends else answer_ids


def _render(
    tokenizer: "PreTrainedTokenizerBase", messages: list[dict[str, Any]], *, add_generation_prompt: bool
) -> str:
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=add_generation_prompt))


def _encode(tokenizer: "PreTrainedTokenizerBase", text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def select(
    rows: Sequence[TokenizedRow | None],
    *,
    max_tokens: int,
    max_rows: int | None,
    replay_share: float = 0.0,
    seed: int = 0,
) -> Selection:
    """Select the rows that fit: cut long prompts on the left, drop rows without room for a prompt, then the lightest.

    Weight halves with age, so the lightest rows are mostly the oldest. A `replay_share` of `max_rows` is drawn from
    them uniformly at random, at the mean weight of the others, against catastrophic forgetting.
    """
    drops = Counter({reason: 0 for reason in DROPS})
    kept: list[TokenizedRow] = []
    for row in rows:
        if row is None:
            drops["empty"] += 1
        elif (room := max_tokens - max(map(len, row.completions))) < 1:
            drops["too_long"] += 1
        else:
            kept.append(replace(row, prompt=row.prompt[-room:]))
    if max_rows is not None and len(kept) > max_rows:
        drops["over_max_rows"] = len(kept) - max_rows
        by_weight = sorted(range(len(kept)), key=lambda index: (-kept[index].weight, index))
        num_heavy = max_rows - round(max_rows * replay_share)
        heavy, light = by_weight[:num_heavy], by_weight[num_heavy:]
        replayed = random.Random(seed).sample(light, max_rows - num_heavy)
        mean = sum(kept[index].weight for index in heavy) / max(1, num_heavy)
        kept = [replace(kept[n], weight=mean) if n in replayed else kept[n] for n in sorted([*heavy, *replayed])]
    return Selection(kept, {reason: count for reason, count in drops.items() if count})


def hold_out(selection: Selection, share: float, seed: int) -> Selection:
    """Hold out whole groups, about `share` of the rows. Raises UserError if no row is left to train on."""
    if not share or not selection.rows:
        return selection
    groups = sorted({row.group for row in selection.rows})
    random.Random(seed).shuffle(groups)
    sizes = Counter(row.group for row in selection.rows)
    before = accumulate((sizes[group] for group in groups), initial=0)
    kept_out = {group for group, rows in zip(groups, before, strict=False) if rows < share * len(selection.rows)}
    watched = [row for row in selection.rows if row.group in kept_out]
    rows = [row for row in selection.rows if row.group not in kept_out]
    if not rows:
        raise UserError(
            f"train_adapter.dpo.stop.share = {share} of {len(groups)} conversations leaves none to train on; "
            "lower it, or collect more feedback"
        )
    return Selection(rows, {**selection.drops, "watched": len(watched)}, watched)
