"""Chats that no client names are found by what was said, in branches, across collections, and whoever else said Hi."""

import io
from pathlib import Path

import polars as pl
import pytest

from ratchet.collection.collect_triplets import STEP
from ratchet.collection.conversations import NEEDED, find_chats, turns_of
from ratchet.config import Config
from ratchet.events import Interaction
from ratchet.ingest.landing import land
from ratchet.lake import tables
from ratchet.lake.schema import INTERACTIONS, interaction_row
from ratchet.step import run_step
from ratchet.store import Store, open_store
from support.event_factory import interaction

Said = list[tuple[str, str]]


def turn(own_id: str, at: float, said: Said, answer: str, **fields: object) -> Interaction:
    messages = [{"role": role, "content": content} for role, content in said]
    named = {"conversation_id": own_id, "served_at": 1_750_000_000 + at, **fields}
    return interaction(own_id, messages=messages, response=answer, **named)


def chats(lake: Store) -> dict[str, str]:
    run_step(STEP, Config(), {}, lake)
    rows = tables.scan(lake, INTERACTIONS, tables.ALL).select("interaction_id", "conversation_id").collect()
    return dict(rows.iter_rows())


HI: Said = [("user", "Hi")]
HELLO = [*HI, ("assistant", "Hello!")]
SKY = [*HELLO, ("user", "Why is the sky blue?")]
AIR = [*SKY, ("assistant", "Air scatters."), ("user", "And at night?")]


@pytest.mark.parametrize("at_once", [True, False])
def test_turns_branches_and_regenerations_are_one_chat(tmp_path: Path, at_once: bool) -> None:
    events = [
        turn("one", 0, HI, "Hello!"),
        turn("two", 1, SKY, "Air scatters."),
        turn("two again", 2, SKY, "Magic."),
        turn("branch", 3, [*HELLO, ("user", "Tell me a joke.")], "Knock, knock."),
        turn("three", 4, AIR, "It is dark."),
        turn("other", 5, [("user", "Ho")], "Hello!"),
        turn("system", 6, [("system", "It is noon."), *AIR, ("assistant", " It is dark.\n"), ("user", "Why?")], "So."),
    ]
    lake = open_store(tmp_path)
    for group in [events] if at_once else [[event] for event in events]:
        land(lake, group)
        found = chats(lake)
    assert found == {**dict.fromkeys(("one", "two", "two again", "branch", "three", "system"), "one"), "other": "other"}


def test_examples_before_each_question_are_nobodys_chat(lake: Store) -> None:
    shots: Said = [("user", "2+2"), ("assistant", "4")]
    land(lake, [turn(f"i{number}", number, [*shots, ("user", f"{number}+1")], "?") for number in range(9)])
    found = chats(lake)
    assert all(own_id == chat for own_id, chat in found.items())


def test_people_who_said_the_same_are_told_apart_by_time_and_tenant(lake: Store) -> None:
    land(
        lake,
        [
            turn("a1", 0, HI, "Hello!"),
            turn("a2", 1, SKY, "Air."),
            turn("b1", 2, HI, "Hello!"),
            turn("b2", 3, SKY, "Light."),
            turn("c", 4, SKY, "Blue.", tenant="another"),
            turn("early", -60, SKY, "Before anybody said hello."),
        ],
    )
    assert chats(lake) == {"a1": "a1", "a2": "a1", "b1": "b1", "b2": "b1", "c": "c", "early": "early"}


def test_named_people_who_said_the_same_are_told_apart(lake: Store) -> None:
    first = [turn(f"{name}1", at, HI, "Hello!", subject_id=name) for at, name in enumerate(("alice", "bob"))]
    later = [turn(f"{name}2", at, SKY, "Air.", subject_id=name) for at, name in ((2, "alice"), (3, "bob"))]
    land(lake, [*first, *later])
    assert chats(lake) == {"alice1": "alice1", "alice2": "alice1", "bob1": "bob1", "bob2": "bob1"}


def test_clocks_of_two_servers_may_differ(lake: Store) -> None:
    land(lake, [turn("one", 1, HI, "Hello!"), turn("two", 0, SKY, "Air.")])
    assert chats(lake) == {"one": "one", "two": "one"}


def test_an_opening_of_thousands_costs_no_square_of_them() -> None:
    count = 3000
    events = [turn(f"a{number}", 2 * number, HI, "Hello!") for number in range(count)]
    events += [turn(f"b{number}", 2 * number + 1, SKY, "Air.") for number in range(count)]
    served, earlier = turns_of(pl.DataFrame([as_row(event) for event in events]))
    found = dict(find_chats(served, earlier, served.clear()).iter_rows())
    assert found == {f"b{number}": f"a{number}" for number in range(count)}


def as_row(event: Interaction) -> dict[str, object]:
    row = interaction_row(event)
    return {name: row[name] for name in NEEDED}


def test_rows_that_are_refused_later_stop_nothing() -> None:
    good = as_row(turn("a", 0, HI, "Hello!"))
    odd = [{**good, **other} for other in (
        {"tenant": None}, {"subject_id": None}, {"response": None}, {"messages": None}, {"served_at": None},
        {"messages": '[{"role":5,"content":"x"}]'}, {"messages": '[{"role":"user"}]'}, {"messages": "7"},
        {"messages": '[{"role":"user","content":null}]'}, {"messages": "[" * 5000},
    )]  # fmt: skip
    served, earlier = turns_of(pl.DataFrame([good, *odd], infer_schema_length=None))
    assert served["turn"].null_count() == 7
    assert find_chats(served, earlier, served.clear()).height == 0


def test_a_chat_with_a_name_keeps_it_and_rows_without_messages_stop_nothing(lake: Store) -> None:
    land(lake, [turn("one", 0, HI, "Hello!"), turn("two", 1, SKY, "Air.", conversation_id="named")])
    written = {"subject_id": "u", "response": "r", "base_model": "m", "served_at": 1.75e9, "tenant": "default"}
    rows = [{"interaction_id": text, "conversation_id": text, "messages": text, **written} for text in ("no JSON", "7")]
    file = io.BytesIO()
    pl.DataFrame(rows).write_parquet(file)
    lake.create_if_absent("events/interaction/dt=2025-06-15/rows.parquet", file.getvalue())
    assert chats(lake) == {"one": "one", "two": "named"}
