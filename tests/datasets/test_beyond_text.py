"""An answer that is more than its text, or a prompt that is, makes no row, and the reason says what it was."""

from typing import Any

import pytest

from ratchet.collection import collect_triplets
from ratchet.config import Config
from ratchet.datasets import build_datasets
from ratchet.ingest.landing import land
from ratchet.manifest import Manifest
from ratchet.step import run_step
from ratchet.store import Store
from ratchet.validation import validate_triplets
from support.event_factory import interaction, vote

CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "place", "schema": {"type": "object"}}}
ASKED = {"role": "user", "content": "Where is it?"}
IMAGE = {"type": "image_url", "image_url": {"url": {"sha256": "0", "bytes": 1}}}


def drops(lake: Store) -> dict[str, int]:
    config, done = Config(), dict[str, Manifest]()
    for module in (collect_triplets, validate_triplets, build_datasets):
        step = module.STEP
        done[step.name] = run_step(step, config, {name: done[name] for name in step.inputs}, lake).manifest
    assert not done["validate_triplets"].flows["triplets"].drops, "an answer without a text is no bad row"
    return dict(done["build_datasets"].flows["triplets"].drops)


@pytest.mark.parametrize(
    ("reason", "fields"),
    [
        ("tool_call", {"response": "", "tool_calls": [CALL], "finish_reason": "tool_calls"}),
        ("tool_call", {"response": "Let me check that for you.", "tool_calls": [CALL], "finish_reason": "tool_calls"}),
        ("refusal", {"response": "", "refusal": "I cannot do that."}),
        ("filtered", {"response": "The way to do that is", "finish_reason": "content_filter"}),
        ("imposed_format", {"response": '{"a": "Paris"}', "params": {"response_format": SCHEMA}}),
        ("unseen_history", {"params": {"previous_response_id": "resp_1"}}),
        ("media", {"messages": [{**ASKED, "parts": [{"type": "text", "text": "Where is it?"}, IMAGE]}]}),
        ("continuation", {"messages": [ASKED, {"role": "assistant", "content": "It is in"}]}),
    ],
)
def test_what_training_cannot_render_is_left_out_and_named(lake: Store, reason: str, fields: dict[str, Any]) -> None:
    others = [interaction(f"i{number}", f"Answer {number}.") for number in range(3)]
    land(
        lake, [interaction("odd", **fields), *others, vote("odd-up", "odd"), vote("odd-won", "odd", "preference", "i0")]
    )
    land(lake, [vote("lost", "i1", "preference", "odd"), *(vote(f"v{number}", f"i{number}") for number in range(3))])
    assert drops(lake).get(reason) == 3, "its vote, and the preferences in which it is one of two"


def test_a_chat_with_tools_that_was_answered_in_words_is_taken(lake: Store) -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    asked = [ASKED, {"role": "assistant", "content": "", "tool_calls": [CALL]}, {"role": "tool", "content": "Paris"}]
    land(lake, [interaction("a", tools=tools, messages=[*asked]), vote("up", "a")])
    assert drops(lake) == {}
