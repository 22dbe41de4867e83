"""Augment training rows with copies that have keyboard typos in the prompt, so that answers do not depend on spelling.

A copy has its parent's answers, label, weight, feedback ids and side of the split. The copied rows and their typos are
drawn from a hash of the seed and the row's own texts, so they do not depend on the order of the rows.
"""

import json
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from ratchet.compute.hashing import splitmix64
from ratchet.datasets.near_duplicates import components, near_duplicates
from ratchet.datasets.prompts import prompt_texts
from ratchet.datasets.shingles import stable_hash
from ratchet.digest import canonical_text

if TYPE_CHECKING:
    from ratchet.datasets.shingles import Hashes

    Chat = list[dict[str, Any]]

NAMED_BY = ("messages", "prompt", "chosen", "rejected", "completion", "label")
WORDS_PER_TYPO = 8
# Left as it is: code in fences, in backticks or indented; tags; brackets, which hold placeholders and links.
KEPT = re.compile(
    r"(`{3,}|~{3,})[\s\S]*?(?:\1|\Z)|(`{1,2})[^\n]*?\2|^(?: {4}|\t).*$"
    r"|<(pre|code)\b[\s\S]*?(?:</\3>|\Z)|<[^<>\n]*>|\[[^\[\]\n]*\]|\{[^{}\n]*\}",
    re.MULTILINE,
)
# An ordinary word between spaces: not a number, address, variable, acronym or word of another alphabet.
WORD = re.compile(r"(?<!\S)\(?([A-Za-z][a-z]{3,})[).,:;!?]*(?!\S)")
KEYBOARD = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
NEIGHBOUR_KEYS = {
    row[at]: row[max(0, at - 1) : at] + row[at + 1 : at + 2] for row in KEYBOARD for at in range(len(row))
}


def with_typos(rows: pl.DataFrame, share: float, seed: int, *, held_out: pl.Series, near: float) -> pl.DataFrame:
    """Return the rows of a file (from `materialize.write_out`), followed by copies of a `share` of them.

    There are fewer copies if a prompt has no ordinary word, or if a typo makes it a near duplicate (Jaccard similarity
    of `near`) of a held-out prompt (chats as JSON): no parent is one, but a copy may be.
    """
    numbers = _numbers(rows, seed)
    chosen = np.sort(np.argsort(numbers, kind="stable")[: int(share * len(rows))])
    if not len(chosen):
        return rows
    copies = _copies(rows[chosen], numbers[chosen])
    # A copy may be near a held-out prompt directly or through another copy.
    texts = prompt_texts(pl.concat([copies["asked"], held_out]))
    labels = components(len(texts), near_duplicates(texts, near))
    apart = copies.filter(~np.isin(labels[: len(copies)], labels[len(copies) :]))
    return pl.concat([rows, apart.select(rows.columns)])


def _numbers(rows: pl.DataFrame, seed: int) -> "Hashes":
    """Return a random number for each row, from a hash of its texts."""
    numbers = np.full(len(rows), seed, dtype=np.uint64)
    for name in NAMED_BY:
        if name in rows.columns:
            numbers = splitmix64(numbers) ^ stable_hash(rows[name].cast(pl.String))
    return splitmix64(numbers)


def _copies(rows: pl.DataFrame, numbers: "Hashes") -> pl.DataFrame:
    """Return the rows whose prompt got a typo, with `asked`, the changed prompt alone."""
    column, num_answers = ("messages", 1) if "messages" in rows.columns else ("prompt", 0)
    chats, prompts = [], []
    for text, number in zip(rows[column], numbers, strict=True):
        turns = json.loads(text)
        num_asked = len(turns) - num_answers
        asked = _chat_with_typos(turns[:num_asked], number)
        prompts.append(asked and canonical_text(asked))
        chats.append(asked and canonical_text([*asked, *turns[num_asked:]]))
    changed = {column: pl.Series(chats, dtype=pl.String), "asked": pl.Series(prompts, dtype=pl.String)}
    return rows.with_columns(**changed, synthetic=pl.lit(True)).drop_nulls("asked")


def _chat_with_typos(chat: "Chat", number: np.uint64) -> "Chat | None":
    """Return the chat with typos in its last user message; None if that has no ordinary word."""
    place = max((place for place, turn in enumerate(chat) if turn["role"] == "user"), default=None)
    if place is None:
        return None
    text = chat[place]["content"]
    changed = _with_typos(text, number)
    return None if changed == text else [*chat[:place], {**chat[place], "content": changed}, *chat[place + 1 :]]


def _with_typos(text: str, number: np.uint64) -> str:
    bare = KEPT.sub(lambda kept: "\0" * len(kept[0]), text)
    words = [match.span(1) for match in WORD.finditer(bare)]
    num_typos = max(1, len(bare.split()) // WORDS_PER_TYPO)
    draws = splitmix64(np.arange(len(words), dtype=np.uint64) ^ number)
    for place in sorted(np.argsort(draws, kind="stable")[:num_typos], reverse=True):  # from the end: offsets stay valid
        first, last = words[place]
        text = text[:first] + _typo(text[first:last], int(draws[place])) + text[last:]
    return text


def _typo(word: str, draw: int) -> str:
    """Swap a letter after the first with the next, double it, replace it by a neighbouring key, or drop it."""
    draw, kind = divmod(draw, 4)
    draw, at = divmod(draw, len(word) - 1)
    before, letter, after = word[: at + 1], word[at + 1], word[at + 2 :]
    if kind == 0 and after and after[0] != letter:
        return f"{before}{after[0]}{letter}{after[1:]}"
    if kind == 1:
        return f"{before}{letter}{letter}{after}"
    if kind == 2:
        return f"{before}{NEIGHBOUR_KEYS[letter][draw % len(NEIGHBOUR_KEYS[letter])]}{after}"
    return f"{before}{after}"
