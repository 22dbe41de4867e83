import json
import re

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratchet.datasets.augment import with_typos
from support.leak_checker import said

NOTHING = pl.Series([], dtype=pl.String)
WORDS = ["What", "capital", "please", "rain", "(bread)", "butter,", "committee", "zzzz", "is", "of", "a"]
KEPT = [
    "`return value`", "```\nprint every line\n```", "~~~ some code ~~~", "https://example.com/some/page?with=words",
    "[EMAIL]", "[YOUR NAME HERE]", "[Your name]", "ann@example.com", "2024", "12abcd", "naïve", "привет", "你好hello",
    "NASA", "someName", "snake_case", "don't", "<b class=bold>", "{placeholder}", "example.com", '"butterfly"',
    "\n    indented code here\n",
]  # fmt: skip
texts = st.lists(st.sampled_from(WORDS + KEPT), min_size=1, max_size=40).map(" ".join)
chats = st.tuples(st.booleans(), st.booleans(), texts, st.text())


def dumped(*turns: tuple[str, str]) -> str:
    found = [{"content": content, "role": role} for role, content in turns]
    return json.dumps(found, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def chat(is_ordered: bool, is_later: bool, text: str, earlier: str) -> str:
    orders = [("system", "Answer every question politely")] * is_ordered
    before = [("user", earlier), ("assistant", "Certainly something")] * is_later
    return dumped(*orders, *before, ("user", text))


def table(kind: str, chats: list[str]) -> pl.DataFrame:
    """Rows of a file, each with a number of its own in its answer."""
    answers = [f"answer number {number}" for number in range(len(chats))]
    texts = {
        "sft": {"messages": [answered(prompt, answer) for prompt, answer in zip(chats, answers, strict=True)]},
        "dpo": {"prompt": chats, "chosen": answers, "rejected": ["no answer"] * len(chats)},
        "kto": {"prompt": chats, "completion": answers, "label": [len(prompt) % 2 == 0 for prompt in chats]},
    }[kind]
    told = {"weight": [0.5] * len(chats), "caution": [1.0] * len(chats), "feedback_ids": [[text] for text in answers]}
    is_text = dict.fromkeys(("messages", "prompt", "chosen", "rejected", "completion"), pl.String)
    kinds = {**is_text, "label": pl.Boolean, "synthetic": pl.Boolean}
    rows = {**texts, **told, "synthetic": [False] * len(chats)}
    return pl.DataFrame(rows, schema_overrides={name: kinds[name] for name in rows if name in kinds})


def answered(prompt: str, answer: str) -> str:
    return dumped(*[(turn["role"], turn["content"]) for turn in json.loads(prompt)], ("assistant", answer))


def copies(rows: pl.DataFrame, share: float = 1.0, seed: int = 0, held_out: pl.Series = NOTHING) -> pl.DataFrame:
    return with_typos(rows, share, seed, held_out=held_out, near=0.8).filter("synthetic")


def slipped(text: str, seed: int = 0) -> str | None:
    """The text as the copy of a row has it."""
    found = copies(table("kto", [dumped(("user", text))]), seed=seed)["prompt"].to_list()
    return said(found[0]) if found else None


def one_edit_apart(one: str, other: str) -> bool:
    """By trying all: a letter dropped, two neighbours swapped, a letter added or replaced."""
    splits = [(other[:at], other[at:]) for at in range(len(other) + 1)]
    dropped = {left + right[1:] for left, right in splits if right}
    swapped = {left + right[1] + right[0] + right[2:] for left, right in splits if len(right) > 1}
    letters = set(one.lower())
    added = {left + letter + right for left, right in splits for letter in letters}
    replaced = {left + letter + right[1:] for left, right in splits if right for letter in letters}
    return one in dropped | swapped | added | replaced


kinds = st.sampled_from(["sft", "dpo", "kto"])
seeds = st.integers(0, 2**32)


@given(kinds, st.lists(chats, max_size=30), st.floats(0, 0.2), seeds)
def test_rows_stay_and_copies_behind_them_are_no_more_than_the_share(kind, drawn, share, seed):
    rows = table(kind, [chat(*one) for one in drawn])
    made = with_typos(rows, share, seed, held_out=NOTHING, near=0.8)
    assert made.head(len(rows)).equals(rows)
    assert made["synthetic"].to_list() == [False] * len(rows) + [True] * (len(made) - len(rows))
    assert len(made) - len(rows) <= share * len(rows)
    assert made.equals(with_typos(rows, share, seed, held_out=NOTHING, near=0.8))


@given(kinds, st.lists(chats, min_size=2, max_size=20), seeds)
def test_copies_do_not_depend_on_the_order_of_the_rows(kind, drawn, seed):
    rows = table(kind, [chat(*one) for one in drawn])
    one, other = copies(rows, 0.5, seed), copies(rows.reverse(), 0.5, seed)
    assert sorted(one.rows(), key=str) == sorted(other.rows(), key=str)


@given(kinds, st.lists(chats, min_size=1, max_size=10), seeds)
def test_a_copy_differs_from_its_parent_in_what_the_user_said_last_and_that_it_is_synthetic(kind, drawn, seed):
    rows = table(kind, [chat(*one) for one in drawn])
    column = "messages" if kind == "sft" else "prompt"
    for copy in copies(rows, seed=seed).iter_rows(named=True):
        (parent,) = [row for row in rows.iter_rows(named=True) if row["feedback_ids"] == copy["feedback_ids"]]
        assert {**copy, column: "", "synthetic": False} == {**parent, column: ""}
        before, after = json.loads(parent[column]), json.loads(copy[column])
        last = max(place for place, turn in enumerate(before) if turn["role"] == "user")
        changed = [place for place, (one, other) in enumerate(zip(before, after, strict=True)) if one != other]
        assert changed == [last] and after[last]["role"] == "user"


@given(texts, seeds)
def test_few_words_change_each_by_one_edit_and_what_is_no_ordinary_word_stays(text, seed):
    after = slipped(text, seed)
    if after is None:
        assert not re.search(r"(?<!\S)(What|capital|please|rain|\(bread\)|butter,|committee|zzzz)(?!\S)", outside(text))
        return
    words = list(zip(re.split(r"(\s)", text), re.split(r"(\s)", after), strict=True))
    changed = [(one, other) for one, other in words if one != other]
    assert 1 <= len(changed) <= max(1, len(text.split()) / 8)
    assert {one for one, _ in changed} <= {word for word in WORDS if len(word) > 3}
    assert all(one_edit_apart(other, one) for one, other in changed)
    assert [text.count(kept) for kept in KEPT] == [after.count(kept) for kept in KEPT]


def outside(text: str) -> str:
    return re.sub(r"```[^`]*```|~~~[^~]*~~~|`[^`]*`|\n    .*\n|<[^>]*>", "_", text)


def test_slips_are_the_same_in_every_version():
    text = "Please tell me which of these letters to my landlord about the broken heating is more polite"
    assert [slipped(text, seed) for seed in range(3)] == [
        "Please tell me whicch of these leetters to my landlord about the broken heating is more polite",
        "Please tell me which of these letters to my landlord anout the broken heating is more poliite",
        "Please tell me whihc of these letters to my landlord about the brokn heating is more polite",
    ]


@pytest.mark.parametrize("text", [*KEPT, "", "Who is it?", "```\nnever closed, so all of it is code", "1 + 1 = 2"])
def test_prompt_in_which_nothing_may_change_gets_no_copy(text):
    assert {slipped(text, seed) for seed in range(20)} == {None}


def test_chat_in_which_no_user_speaks_gets_no_copy():
    rows = table("dpo", [dumped(("system", "Answer every question politely"))])
    assert len(copies(rows)) == 0


def all_slips(text: str) -> set[str]:
    """What becomes of the text in the copies of many rows."""
    return {said(chat) for chat in copies(table("kto", [dumped(("user", text))] * 1000))["prompt"]}


def test_every_kind_of_slip_occurs():
    assert {"braed", "bred", "brread", "bresd"} <= all_slips("bread")


@pytest.mark.parametrize("kind", ["sft", "dpo", "kto"])
def test_copy_that_a_slip_brings_near_what_is_held_out_is_left_out(kind):
    """Every slip of the word is held out, the word is not."""
    rows = table(kind, [dumped(("user", "is it bread ?"))] * 100)
    held_out = pl.Series([dumped(("user", slip)) for slip in sorted(all_slips("is it bread ?"))])
    assert len(copies(rows)) == 100
    assert len(copies(rows, held_out=held_out)) == 0
    assert len(copies(rows, held_out=held_out[:1])) not in (0, 100)
