"""Looks for leaks between the sides of a dataset, over all pairs, by brute force. Shares no code with the splitter."""

import json
from collections.abc import Iterator
from functools import cache
from itertools import product
from pathlib import Path

import polars as pl

KINDS = ("sft", "dpo", "kto")
Pair = tuple[str, str]


@cache
def parts(text: str) -> frozenset[tuple[str, ...]]:
    words = "".join(sign if sign.isalnum() or sign == "_" else " " for sign in text.casefold()).split()
    width = 3 if len(words) >= 8 else 1
    return frozenset(tuple(words[at : at + width]) for at in range(len(words) - width + 1))


def is_near(one: str, other: str, threshold: float) -> bool:
    """The rule itself, written again without an index."""
    if " ".join(one.casefold().split()) == " ".join(other.casefold().split()):
        return True
    small, large = sorted((parts(one), parts(other)), key=len)
    if len(small) < threshold * len(large):
        return False
    shared = len(small & large)
    union = len(small) + len(large) - shared
    return union > 0 and shared >= threshold * union - 1e-9


def said(messages: str) -> str:
    return "\n".join(turn["content"] for turn in json.loads(messages) if turn["role"] != "system")


def leaks(folder: Path, triplets: pl.DataFrame, threshold: float = 0.8) -> list[tuple[str, str, str]]:
    """Every (what, in train, in eval): conversations on both sides, and prompts that are nearly the same."""
    told = {row["triplet_id"]: row for row in triplets.iter_rows(named=True)}
    train, held_out = ([told[feedback] for feedback in _feedback(folder, side)] for side in ("train", "eval"))
    conversations = {row["conversation_id"] for row in train} & {row["conversation_id"] for row in held_out}
    return [("conversation", name, name) for name in sorted(conversations)] + [
        ("prompt", one, other)
        for one, other in product({said(row["messages"]) for row in train}, {said(row["messages"]) for row in held_out})
        if is_near(one, other, threshold)
    ]


def near_prompts(folder: Path, threshold: float = 0.8, sides: tuple[str, ...] = ("eval", "recent")) -> list[Pair]:
    """Every (in train, held out) of prompts that are nearly the same, as the files themselves have them."""
    held_out = {prompt for side in sides for prompt in prompts(folder, side)}
    pairs = product(sorted(set(prompts(folder, "train"))), sorted(held_out))
    return [(one, other) for one, other in pairs if is_near(one, other, threshold)]


def prompts(folder: Path, side: str) -> Iterator[str]:
    for path in sorted(folder.glob(f"*-{side}.parquet")):
        table = pl.read_parquet(path)
        if "prompt" in table.columns:
            yield from map(said, table["prompt"])
        else:
            yield from (said(json.dumps(json.loads(chat)[:-1])) for chat in table["messages"])


def _feedback(folder: Path, side: str) -> Iterator[str]:
    for kind in KINDS:
        for feedback in pl.read_parquet(folder / f"{kind}-{side}.parquet")["feedback_ids"]:
            yield from feedback
