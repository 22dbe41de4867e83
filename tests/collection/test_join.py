import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from ratchet.clock import DAY_S
from ratchet.collection.join import (
    Joined,
    first_of_each,
    join_triplets,
    may_still_join,
    needed_interactions,
    newest_time,
)
from ratchet.events import Feedback, Interaction
from ratchet.lake.schema import COLLECTION, FEEDBACK, INTERACTIONS, feedback_row, interaction_row
from support.event_factory import NOW_S, interaction, vote

MAY_WAIT = may_still_join(NOW_S, late_days=30)


def interactions(*events: Interaction) -> pl.DataFrame:
    return pl.DataFrame([interaction_row(event) | {COLLECTION: 1} for event in events], INTERACTIONS.schema)


def feedback(*events: Feedback) -> pl.DataFrame:
    return pl.DataFrame([feedback_row(event) | {COLLECTION: 1} for event in events], FEEDBACK.schema)


def join(votes: list[Feedback], served: list[Interaction]) -> Joined:
    return join_triplets(feedback(*votes), interactions(*served), MAY_WAIT)


def test_a_triplet_holds_the_answer_and_who_judged_it():
    joined = join([vote("f", "a", value=-1)], [interaction("a", response="yes", adapter_digest="d7")])
    triplet = joined.triplets.row(0, named=True)
    assert triplet["triplet_id"] == "f"
    assert (triplet["interaction_id"], triplet["conversation_id"], triplet["response"]) == ("a", "c-a", "yes")
    assert (triplet["subject_id"], triplet["value_num"], triplet["value_text"]) == ("judge", -1.0, None)
    assert (triplet["adapter_digest"], triplet["messages"]) == ("d7", '[{"content":"How is it?","role":"user"}]')


def test_a_triplet_carries_consent_exposure_and_what_was_taken_back():
    served = interaction("a", consent_training="denied", retention_until=NOW_S, propensity=0.5, candidate_group_id="g")
    taken_back = vote("f", "a", comment="oops", supersedes_id="e", is_retracted=True, account_age_days=3)
    triplet = join([taken_back], [served]).triplets.row(0, named=True)
    assert (triplet["consent_training"], triplet["retention_until"]) == ("denied", NOW_S)
    assert (triplet["propensity"], triplet["candidate_group_id"], triplet["parent_interaction_id"]) == (0.5, "g", None)
    assert (triplet["comment"], triplet["supersedes_id"], triplet["is_retracted"]) == ("oops", "e", True)
    assert triplet["account_age_days"] == 3.0


def test_consent_that_nobody_gave_is_unknown():
    told = interaction("a").model_dump(exclude={"consent_training"})
    joined = join([vote("f", "a")], [Interaction.model_validate(told)])
    assert joined.triplets["consent_training"].to_list() == ["unknown"]


def test_a_preference_brings_the_losing_answer():
    lost = interaction("b", response="bad", finish_reason="length", consent_training="denied", retention_until=NOW_S)
    joined = join([vote("f", "a", "preference", "b")], [interaction("a", response="good"), lost])
    other = joined.triplets.select("other_response", "other_finish_reason", "other_consent", "other_retention_until")
    assert other.row(0) == ("bad", "length", "denied", NOW_S)


def test_a_preference_brings_no_other_tenants_answer():
    served = [interaction("a", tenant="one"), interaction("b", response="secret", tenant="two")]
    joined = join([vote("f", "a", "preference", "b")], served)
    assert (joined.triplets.height, joined.waiting.height) == (0, 1)


def test_people_without_a_name_are_those_of_the_chat_that_was_found():
    names = {"t/anonymous/i1": "t/anonymous/c", "anonymous/i1": "anonymous/c", "t/ann": "t/ann", "x/anonymous/y": None}
    for subject, voter in names.items():
        served = [interaction("a", tenant="t", subject_id=subject, conversation_id="c")]
        joined = join([vote("f", "a", subject_id=subject)], served)
        assert joined.triplets["subject_id"].to_list() == [voter or subject]
    served = [interaction("a", tenant="t", subject_id="t/anonymous/i1", conversation_id="c")]
    assert join([vote("f", "a", subject_id="t/bob")], served).triplets["subject_id"].to_list() == ["t/bob"]


def test_only_a_preference_has_an_other_answer():
    served = [interaction("a"), interaction("b", response="bad")]
    joined = join([vote("f", "a", "correction", "b")], served)
    assert joined.triplets["other_response"].to_list() == [None]


def test_a_preference_waits_for_both_answers():
    joined = join([vote("f", "a", "preference", "b")], [interaction("a")])
    assert (joined.triplets.height, joined.waiting.height, joined.orphans) == (0, 1, 0)


def test_a_preference_that_names_no_loser_is_left_to_validation():
    joined = join([vote("f", "a", "preference", 3)], [interaction("a")])
    assert joined.triplets["other_response"].to_list() == [None]


def test_feedback_waits_until_it_is_too_late():
    young, old = vote("y", "gone", at=NOW_S - 29 * DAY_S), vote("o", "gone", at=NOW_S - 31 * DAY_S)
    joined = join([young, old], [interaction("a")])
    assert (joined.waiting["feedback_id"].to_list(), joined.orphans) == (["y"], 1)


def test_feedback_with_a_broken_clock_does_not_wait_for_ever():
    joined = join([vote(f"f{at}", "gone", at=at) for at in (-1.0, 1e18, float("nan"), float("inf"))], [])
    assert (joined.waiting.height, joined.orphans) == (0, 4)


def test_a_broken_clock_does_not_move_the_late_window():
    assert newest_time(pl.Series([NOW_S, NOW_S * 1000, float("nan"), NOW_S + 5, None])) == NOW_S + 5


def test_no_events_have_no_newest_time():
    assert newest_time(pl.Series([], dtype=pl.Float64)) == 0.0


def test_the_first_event_of_an_id_counts():
    votes = feedback(vote("f", "a", value=-1, at=NOW_S + 9), vote("f", "a", value=1, at=NOW_S + 1)).drop(COLLECTION)
    kept = first_of_each(votes, FEEDBACK)
    assert kept["value_num"].to_list() == [1.0]


def test_a_preference_needs_two_interactions_and_other_kinds_one():
    votes = feedback(vote("f", "a", "preference", "b"), vote("g", "c", "correction", "d"), vote("h", "e"))
    found = set(needed_interactions(votes).iter_rows())
    assert found == {("a", "a"), ("b", "a"), ("c", "c"), ("e", "e")}


VOTES = st.lists(
    st.builds(
        vote,
        st.sampled_from(["f", "g", "h"]),
        st.sampled_from(["a", "b", "gone"]),
        st.just("preference"),
        st.sampled_from(["a", "b", "gone", 1.0]),
        st.sampled_from([NOW_S, NOW_S + 1, NOW_S - 40 * DAY_S]),
    ),
    max_size=8,
)


@given(votes=VOTES, order=st.randoms(use_true_random=False))
def test_order_of_arrival_does_not_matter_and_nothing_vanishes(votes: list[Feedback], order):
    shuffled = list(votes)
    order.shuffle(shuffled)
    results = []
    for arrived in (votes, shuffled):
        kept = first_of_each(feedback(*arrived).drop(COLLECTION), FEEDBACK)
        joined = join_triplets(
            kept.with_columns(collection=1), interactions(interaction("a"), interaction("b")), MAY_WAIT
        )
        assert joined.triplets.height + joined.waiting.height + joined.orphans == kept.height
        assert kept.height == len({event.feedback_id for event in votes})
        results.append(joined.triplets)
    assert results[0].equals(results[1])
