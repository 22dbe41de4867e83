import math
from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from ratchet.events import Feedback
from ratchet.router.feedback import VoteRequest
from ratchet.router.tokens import Ticket

TICKET = Ticket(interaction_id="i", subject_id="s", tenant="t", adapter_digest="d", arm="canary")


def vote(kind: str, value: Any, **fields: Any) -> VoteRequest:
    return VoteRequest.model_validate({"kind": kind, "value": value, **fields})


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("thumb", 1),
        ("thumb", -1),
        ("rating", 1),
        ("rating", 5),
        ("correction", "42"),
        ("preference", "other"),
        ("dwell_ms", 1500.5),
        ("copy", 1),
        ("regenerate", 0),
    ],
)
def test_value_that_suits_its_kind_is_taken_as_it_is(kind: str, value: Any) -> None:
    event = vote(kind, value).event(TICKET, created_at=7.0)
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
        ("preference", "", "the id of the answer that lost"),
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


def test_nothing_is_preferred_to_itself() -> None:
    with pytest.raises(ValueError, match="the interaction that lost, not of the one that won"):
        vote("preference", "i").event(TICKET, 0)


def test_vote_is_attributed_to_who_asked_and_to_the_digest_that_served() -> None:
    event = vote("thumb", 1).event(TICKET, 0)
    assert (event.interaction_id, event.subject_id) == ("i", "s")
    assert (event.tenant, event.adapter_digest, event.arm) == ("t", "d", "canary")


def test_tie_is_for_preferences() -> None:
    assert vote("preference", "other", is_tie=True).event(TICKET, 0).is_tie
    with pytest.raises(ValidationError, match="is_tie goes with kind 'preference'"):
        vote("thumb", 1, is_tie=True)


def test_unknown_field_is_refused() -> None:
    with pytest.raises(ValidationError, match="subject_id"):
        vote("thumb", 1, subject_id="somebody else")


def test_a_vote_that_is_sent_again_has_the_same_id_and_any_other_its_own() -> None:
    first = vote("thumb", 1, feedback_id="a").event(TICKET, 0).feedback_id
    assert vote("thumb", 1, feedback_id="a").event(TICKET, 9).feedback_id == first
    others = [
        vote("thumb", -1, feedback_id="a").event(TICKET, 0),
        vote("thumb", 1, feedback_id="a", is_retracted=True).event(TICKET, 0),
        vote("rating", 1, feedback_id="a").event(TICKET, 0),
        vote("thumb", 1, feedback_id="a").event(replace(TICKET, subject_id="other"), 0),
        vote("thumb", 1, feedback_id="a").event(replace(TICKET, interaction_id="j"), 0),
        vote("thumb", 1, feedback_id="mine").event(TICKET, 0),
        vote("thumb", 1, feedback_id="mine").event(replace(TICKET, subject_id="other"), 0),
    ]
    assert len({first, *(other.feedback_id for other in others)}) == 8


def test_up_down_and_up_again_are_three_votes_of_which_the_last_one_counts() -> None:
    times = [vote("thumb", value).event(TICKET, created_at=at) for at, value in enumerate((1, -1, 1))]
    assert len({event.feedback_id for event in times}) == 3


def test_a_comment_and_tags_go_with_their_vote() -> None:
    event = vote("thumb", -1, comment="too long", tags=["style"]).event(TICKET, created_at=1.0)
    assert (event.value, event.comment, event.tags) == (-1, "too long", ["style"])


@pytest.mark.parametrize("kind", ["thumb", "rating", "correction", "comment"])
def test_what_is_taken_back_needs_no_value(kind: str) -> None:
    assert VoteRequest.model_validate({"kind": kind, "is_retracted": True}).event(TICKET, 0).is_retracted
    with pytest.raises(ValidationError, match="value"):
        VoteRequest.model_validate({"kind": kind})


def test_choices_of_a_completion_are_answers_of_their_own() -> None:
    assert vote("thumb", 1, choice=2).event(TICKET, 0).interaction_id == "i-2"
    preferred = vote("preference", 0, choice=1).event(TICKET, 0)
    assert (preferred.interaction_id, preferred.value) == ("i-1", "i")
    with pytest.raises(ValueError, match="not of the one that won"):
        vote("preference", 1, choice=1).event(TICKET, 0)
