"""The fast decoder and the models must never disagree: on rows, or on what is an event at all."""

import json
from typing import Any

import polars as pl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from ratchet.collection import decode_json
from ratchet.events import Feedback, Interaction
from ratchet.lake.schema import COLLECTION, FEEDBACK, INTERACTIONS, feedback_row, interaction_row
from support.event_factory import interaction, vote

SERVED = interaction("a", params={"temperature": 0.7}, parent_interaction_id="b").model_dump(mode="json")
VOTE = vote("f", "a", value=1, comment="why").model_dump(mode="json")
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


def test_what_our_own_producers_write_takes_the_fast_way():
    for event in (interaction("a", params={"t": 1}), vote("f", "a"), vote("g", "a", "comment", "hm")):
        decode_json._decoder(type(event)).decode(event.model_dump_json().encode())
