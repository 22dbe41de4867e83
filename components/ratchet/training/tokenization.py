"""Dataset rows as token ids: tokenised as a server would meet them, and what cannot be trained on left out."""

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
    """Whether a lone answer was liked."""
    reference: tuple[float, ...] = ()
    """Log-probability of each completion under the reference policy, once it is known."""
    group: str = ""
    """Rows of one group may tell of each other: never train on one side of it and watch the other."""

    @property
    def length(self) -> int:
        return len(self.prompt) + max(map(len, self.completions))

    @property
    def num_tokens(self) -> int:
        """Tokens where every completion has the prompt to itself."""
        return self.num_distinct + (len(self.completions) - 1) * len(self.prompt)

    @property
    def num_distinct(self) -> int:
        """Tokens where the completions share one prompt."""
        return len(self.prompt) + sum(map(len, self.completions))


@dataclass(frozen=True)
class Selection:
    """Rows to train on, and how many were left out for which of `DROPS`."""

    rows: list[TokenizedRow] = field(default_factory=list)
    drops: dict[str, int] = field(default_factory=dict)
    watched: list[TokenizedRow] = field(default_factory=list)
    """Kept out of training, to see when to stop; see `hold_out`."""


def sft_rows(table: Iterable[Mapping[str, Any]], tokenizer: "PreTrainedTokenizerBase") -> list[TokenizedRow | None]:
    """Rows of `{messages, weight}`; None where an answer is empty."""
    rows: list[TokenizedRow | None] = []
    for record in table:
        *prompt, answer = json.loads(record["messages"])
        rows.append(_row(prompt, [(answer["content"], True)], record["weight"], 0.0, tokenizer))
    return rows


def dpo_rows(table: Iterable[Mapping[str, Any]], tokenizer: "PreTrainedTokenizerBase") -> list[TokenizedRow | None]:
    """Rows of a DPO file; None where an answer is empty.

    An answer that the length limit cut off (`chosen_ends`, `rejected_ends`) has no end of turn to learn.
    """
    rows: list[TokenizedRow | None] = []
    for record in table:
        answers = [(record[side], record[f"{side}_ends"]) for side in ("chosen", "rejected")]
        row = _row(json.loads(record["prompt"]), answers, record["weight"], record["flip_probability"], tokenizer)
        rows.append(row and replace(row, group=record.get("group", "")))
    return rows


def kto_rows(table: Iterable[Mapping[str, Any]], tokenizer: "PreTrainedTokenizerBase") -> list[TokenizedRow | None]:
    """Rows of `{prompt, completion, label, weight}`; None where an answer is empty.

    Behind each answer stands the next row's answer, of which only the drift from the reference is measured.
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


def select(
    rows: Sequence[TokenizedRow | None],
    *,
    max_tokens: int,
    max_rows: int | None,
    replay_share: float = 0.0,
    seed: int = 0,
) -> Selection:
    """Rows that fit: long prompts lose their beginning, rows without room for a prompt go, then the lightest go.

    Weight halves with age, so the lightest are mostly the oldest. A `replay_share` of `max_rows` is drawn from them
    all the same, evenly, and weighs as much as the others do in the mean: what was learnt is not to be forgotten.
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
    """Keep whole groups, about `share` of the rows, out of training. Raises UserError where that leaves either none."""
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
