"""The fast decoder and the models must never disagree: on rows, or on what is an event at all."""

import json
from typing import Any, get_args

import polars as pl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from ratchet.collection import decode_json
from ratchet.events import Consent, Event, Feedback, Interaction, Kind, Source
from ratchet.lake.schema import COLLECTION, FEEDBACK, INTERACTIONS, KEPT_IN_EXTRA, feedback_row, interaction_row
from ratchet.router.chat_request import PARAMS
from ratchet.router.feedback import VoteRequest
from ratchet.router.tokens import Ticket
from support.event_factory import interaction, vote

SERVED = interaction("a", params={"temperature": 0.7}, parent_interaction_id="b").model_dump(mode="json")
VOTE = vote("f", "a", value=1, comment="why", tenant="acme", arm="canary", unheard_of=1).model_dump(mode="json")
TEXTS = st.text(alphabet=st.characters(), max_size=4) | st.sampled_from(["granted", "thumb", "1", "true", "nan", ""])
NUMBERS = st.floats() | st.integers(-(2**70), 2**70) | st.sampled_from([2**63, 2**63 - 1, -(2**63), 1e16, 1e300, 5.0])
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXTS, inner, max_size=2),
    max_leaves=4,
)
MESSAGES = st.lists(st.fixed_dictionaries({}, optional={"role": TEXTS, "content": TEXTS, "name": TEXTS}), max_size=2)


def changed(event: dict[str, Any]) -> st.SearchStrategy[bytes]:
    """The event as a line, with some fields changed, dropped or added, in any order and spelling of JSON."""
    names = st.sampled_from([*event, "unknown"])
    values = JSON | MESSAGES
    edits = st.dictionaries(names, values | st.just(...), max_size=3)

    def line(edits: dict[str, Any], ascii_only: bool, spaced: bool, order: Any) -> bytes:
        fields = [(name, value) for name, value in {**event, **edits}.items() if value is not ...]
        order.shuffle(fields)
        text = json.dumps(dict(fields), ensure_ascii=ascii_only, separators=None if spaced else (",", ":"))
        return text.encode("utf-8", "surrogatepass")

    return st.builds(line, edits, st.booleans(), st.booleans(), st.randoms(use_true_random=False))


def agree(lines: list[bytes], fast: Any, model: Any, to_row: Any, table: Any) -> None:
    rows, bad = [], []
    for place, line in enumerate(lines):
        try:
            rows.append(to_row(model.model_validate_json(line)))
        except ValidationError as error:
            bad.append((place, str(error)))
    schema = {name: kind for name, kind in table.schema.items() if name != COLLECTION}
    found, faults = fast(lines)
    assert [(fault.place, str(fault.error)) for fault in faults] == bad
    by_all = list(schema)
    assert found.sort(by_all).equals(pl.DataFrame(rows, schema).sort(by_all))


@given(lines=st.lists(changed(SERVED), max_size=3))
@example(lines=[b'{"interaction_id":"\\ud800"}', b"\xff", b"[" * 5000, b"", b"null", b"\xef\xbb\xbf{}"])
@example(lines=[json.dumps(SERVED | {"response": '\x00\x1f\x7f\u2028"\\/é\U0001f600'}).encode()])
@example(lines=[json.dumps(SERVED).encode()[:-1] + b',"arm":"canary"}'])
@example(lines=[json.dumps(SERVED | {"params": params}).encode() for params in (None, [], 1, {"n": 2**70, "f": 1e16})])
def test_interactions_are_what_the_model_says(lines: list[bytes]):
    agree(lines, decode_json.interactions, Interaction, interaction_row, INTERACTIONS)


@given(lines=st.lists(changed(VOTE), max_size=3))
@example(lines=[json.dumps(VOTE | {"value": value}).encode() for value in (True, "1", 1, 2**70, None, 0.1, -0.0)])
@example(lines=[json.dumps(VOTE).replace('"value": 1', '"value": 1e400').encode()])
def test_feedback_is_what_the_model_says(lines: list[bytes]):
    agree(lines, decode_json.feedback, Feedback, feedback_row, FEEDBACK)


@pytest.mark.parametrize("text", ["\x00\x1f\x7f", '"\\/', "é\U0001f600\u2028", "\t\n\r\b\f"])
def test_prompts_are_written_as_canonical_json(text: str):
    line = interaction("a", messages=[{"role": "user", "content": text}]).model_dump_json().encode()
    rows, _ = decode_json.interactions([line])
    written = json.dumps([{"content": text, "role": "user"}], separators=(",", ":"), ensure_ascii=False)
    assert rows["messages"].to_list() == [written]


def takes_the_fast_path(event: Event) -> None:
    line = event.model_dump_json().encode()
    decode_json._decoder(type(event)).decode(line)
    fast, model, to_row, table = (
        (decode_json.feedback, Feedback, feedback_row, FEEDBACK)
        if isinstance(event, Feedback)
        else (decode_json.interactions, Interaction, interaction_row, INTERACTIONS)
    )
    agree([line], fast, model, to_row, table)


FINITE = st.floats(allow_nan=False, allow_infinity=False)  # JSON has no other numbers
WORDS = st.text(max_size=8)
NAMES = st.text(min_size=1, max_size=8)
MAYBE = {"words": st.none() | WORDS, "number": st.none() | FINITE}
TICKETS = st.builds(Ticket, interaction_id=NAMES, subject_id=NAMES, tenant=WORDS, adapter_digest=WORDS, arm=WORDS)
VALUES = {
    "thumb": st.sampled_from([-1.0, 1.0]),
    "rating": st.sampled_from([1.0, 2.0, 3.0, 4.0, 5.0]),
    **dict.fromkeys(("correction", "comment"), NAMES.filter(str.strip)),
    "preference": st.just("the one that lost"),
    **dict.fromkeys(("regenerate", "copy", "accept", "dwell_ms", "click", "abandon"), FINITE.map(abs)),
}


def test_every_kind_of_vote_is_tried():
    assert set(VALUES) == set(get_args(Kind))


@pytest.mark.parametrize("kind", VALUES)
@given(data=st.data())
def test_votes_that_the_router_writes_take_the_fast_path(kind: str, data: st.DataObject):
    body = {"kind": kind, "value": data.draw(VALUES[kind]), "feedback_id": data.draw(st.none() | NAMES)}
    if kind == "preference":
        body["is_tie"] = data.draw(st.booleans())
    takes_the_fast_path(VoteRequest.model_validate(body).event(data.draw(TICKETS), data.draw(FINITE)))


@pytest.mark.parametrize("kind", VALUES)
@given(
    value=FINITE | WORDS,
    optional=st.fixed_dictionaries(
        {},
        optional={
            "is_tie": st.booleans(),
            "source": st.sampled_from(get_args(Source)),
            "is_retracted": st.booleans(),
            "account_age_days": MAYBE["number"],
            **dict.fromkeys(
                ("score_name", "comment", "supersedes_id", "tenant", "adapter_digest", "arm"), MAYBE["words"]
            ),
            "tags": st.none() | st.lists(WORDS, max_size=2),
        },
    ),
)
def test_votes_that_the_model_can_write_take_the_fast_path(kind: str, value: float | str, optional: dict[str, Any]):
    takes_the_fast_path(vote("f", "a", kind, value, **optional))


def test_no_optional_field_of_a_vote_is_forgotten_here():
    """The property above draws every field that is not set by `vote`."""
    always = {"feedback_id", "interaction_id", "subject_id", "kind", "value", "created_at"}
    drawn = {"is_tie", "source", "is_retracted", "account_age_days", "score_name", "comment", "supersedes_id"}
    assert set(Feedback.model_fields) == always | drawn | set(KEPT_IN_EXTRA)


@given(
    messages=st.lists(st.fixed_dictionaries({"role": WORDS, "content": WORDS}), max_size=3),
    words=st.fixed_dictionaries(
        dict.fromkeys(
            (
                "conversation_id", "subject_id", "tenant", "response", "base_model", "adapter_name", "adapter_version",
                "adapter_digest", "arm", "finish_reason",
            ),
            WORDS,
        )
    ),
    numbers=st.fixed_dictionaries(
        {**dict.fromkeys(("latency_ms", "served_at"), FINITE), "consent_training": st.sampled_from(get_args(Consent))}
    ),
    counts=st.fixed_dictionaries(dict.fromkeys(("prompt_tokens", "completion_tokens"), st.integers(0, 2**62))),
    params=st.dictionaries(st.sampled_from(PARAMS), st.none() | st.booleans() | st.integers() | FINITE | WORDS),
    optional=st.fixed_dictionaries(
        {},
        optional={
            **dict.fromkeys(("parent_interaction_id", "candidate_group_id"), MAYBE["words"]),
            **dict.fromkeys(("refusal", "reasoning", "task", "completion_id"), MAYBE["words"]),
            **dict.fromkeys(("tools", "tool_calls"), st.none() | st.lists(st.dictionaries(WORDS, WORDS), max_size=2)),
            **dict.fromkeys(("propensity", "retention_until"), MAYBE["number"]),
        },
    ),
)  # fmt: skip
def test_interactions_that_the_model_can_write_take_the_fast_path(
    messages: list[dict[str, str]],
    words: dict[str, str],
    numbers: dict[str, Any],
    counts: dict[str, int],
    params: dict[str, Any],
    optional: dict[str, Any],
):
    """The first five arguments are what the router's relay sets; `optional` is what only other producers set."""
    given_fields = {**words, **numbers, **counts, **optional}
    assert {"interaction_id", "messages", "params", *given_fields} <= set(Interaction.model_fields)
    takes_the_fast_path(interaction("a", messages=messages, params=params, **given_fields))
