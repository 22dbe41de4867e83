import math
from typing import Any

import pytest
from pydantic import ValidationError

from ratchet.events import Feedback
from ratchet.serving.feedback import Vote


def vote(kind: str, value: Any, **fields: Any) -> Vote:
    return Vote.model_validate({"interaction_id": "i", "subject_id": "s", "kind": kind, "value": value, **fields})


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("thumb", 1), ("thumb", -1), ("rating", 1), ("rating", 5), ("correction", "42"), ("preference", "other"),
        ("dwell_ms", 1500.5), ("copy", 1), ("regenerate", 0),
    ],
)  # fmt: skip
def test_value_that_suits_its_kind_is_taken_as_it_is(kind: str, value: Any) -> None:
    event = vote(kind, value).event(created_at=7.0)
    assert isinstance(event, Feedback)
    assert (event.kind, event.value, event.created_at) == (kind, value, 7.0)


@pytest.mark.parametrize(
    ("kind", "value", "allowed"),
    [
        ("thumb", 2, "1 (up) or -1 (down)"),
        ("thumb", "up", "1 (up) or -1 (down)"),
        ("thumb", math.nan, "1 (up) or -1 (down)"),
        ("rating", 0, "from 1 to 5"),
        ("rating", 6, "from 1 to 5"),
        ("rating", 3.5, "whole number"),
        ("correction", "  ", "the text"),
        ("correction", 4, "the text"),
        ("preference", "", "the id of the interaction that lost"),
        ("preference", "i", "the id of the interaction that lost"),
        ("dwell_ms", -1, "0 or more"),
        ("dwell_ms", math.inf, "0 or more"),
        ("click", "yes", "0 or more"),
        ("applause", 1, "'thumb', 'rating'"),
    ],
)
def test_value_that_does_not_suit_says_what_would(kind: str, value: Any, allowed: str) -> None:
    with pytest.raises(ValidationError) as caught:
        vote(kind, value)
    assert allowed in str(caught.value)


def test_tie_is_for_preferences() -> None:
    assert vote("preference", "other", is_tie=True).event(0).is_tie
    with pytest.raises(ValidationError, match="is_tie goes with kind 'preference'"):
        vote("thumb", 1, is_tie=True)


def test_unknown_field_is_refused() -> None:
    with pytest.raises(ValidationError, match="comment"):
        vote("thumb", 1, comment="nice")


def test_own_id_is_one_a_subject_and_kind() -> None:
    first = vote("thumb", 1).event(0).feedback_id
    assert vote("thumb", -1).event(9).feedback_id == first
    others = [vote("rating", 1), vote("thumb", 1, subject_id="t"), vote("thumb", 1, interaction_id="j")]
    assert first not in {other.event(0).feedback_id for other in others}
    assert vote("thumb", 1, feedback_id="mine").event(0).feedback_id == "mine"
