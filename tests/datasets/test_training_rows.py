import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratchet.config import BuildDatasets
from ratchet.datasets.eligibility import assess_eligibility
from ratchet.datasets.interning import intern
from ratchet.datasets.materialize import write_out
from ratchet.datasets.training_rows import REASONS, Rows, make_rows
from support.triplet_factory import QUESTION, Triplet, correction, frame, preference, rating, thumb, triplet


def make(*triplets: Triplet, expired_through: float | None = None, **changes: float) -> Rows:
    """The rows that these triplets make, with texts and triplet ids in place of keys."""
    texts, settings = intern(frame(*triplets)), BuildDatasets(**changes)
    rows = make_rows(assess_eligibility(texts, settings, expired_through), settings, texts.answers.str.len_chars())
    written = {
        name: write_out(name, getattr(rows, name).with_columns(group=pl.lit("")), texts)
        for name in ("sft", "dpo", "kto")
    }
    drops = rows.drops.select(triplet_id=texts.triplet_ids.gather(rows.drops["row"]), reason="reason")
    return Rows(**written, drops=drops)


def reasons(rows: Rows) -> list[str]:
    return rows.drops["reason"].to_list()


def test_up_vote_makes_a_target_and_a_good_completion():
    rows = make(vote := thumb("ann", "Paris."))
    assert rows.kto.select("completion", "label", "weight").row(0) == ("Paris.", True, 0.7)
    assert rows.kto["feedback_ids"].to_list() == rows.sft["feedback_ids"].to_list() == [[vote["triplet_id"]]]
    assert rows.sft["messages"].item() == (
        '[{"content":"What is the capital of France?","role":"user"},{"content":"Paris.","role":"assistant"}]'
    )
    assert rows.dpo.is_empty()
    assert rows.drops.is_empty()


def test_down_vote_makes_no_target():
    rows = make(thumb("ann", "Lyon.", -1))
    assert rows.kto["label"].to_list() == [False]
    assert rows.sft.is_empty()


@pytest.mark.parametrize(("stars", "label"), [(1, False), (2, False), (4, True), (5, True)])
def test_rating_counts_as_up_above_three(stars: int, label: bool):
    assert make(rating("ann", "Paris.", stars)).kto["label"].to_list() == [label]


def test_rating_of_three_says_nothing():
    assert reasons(make(rating("ann", "Paris.", 3))) == ["neutral_rating"]


def test_implicit_signals_alone_make_no_row():
    assert reasons(make(triplet("ann", "Paris.", "copy", value_num=1.0))) == ["implicit_only"]


def test_latest_vote_of_a_subject_wins():
    rows = make(first := thumb("ann", "Paris.", -1, days=0), thumb("ann", "Paris.", 1, days=1))
    assert rows.kto["label"].to_list() == [True]
    assert rows.drops.rows() == [(first["triplet_id"], "superseded")]


def test_votes_of_two_kinds_or_subjects_do_not_supersede():
    assert make(thumb("ann", "Paris."), rating("ann", "Paris.", 5), thumb("bob", "Paris.")).drops.is_empty()


def test_scores_of_two_names_are_two_opinions_and_a_later_one_of_a_name_counts():
    helpful, safe = thumb("ann", "Paris.", score_name="helpful"), thumb("ann", "Paris.", score_name="safe")
    assert make(helpful, safe).drops.is_empty()
    later = make(helpful, safe, thumb("ann", "Paris.", -1, days=1, score_name="helpful"))
    assert later.drops.filter(reason="superseded")["triplet_id"].to_list() == [helpful["triplet_id"]]


def test_a_pair_names_its_tenant_if_it_has_one():
    votes = [preference("ann", "Paris.", "Lyon.", tenant="a"), preference("bob", "Paris.", "Lyon.", tenant="b")]
    alone = preference("ann", "Bonn.", "Kiel.", prompt="And Germany?", tenant="b")
    assert make(*votes, alone).dpo.select("chosen", "tenant").rows() == [("Paris.", "several"), ("Bonn.", "b")]


def test_one_subject_may_prefer_an_answer_to_several():
    rows = make(preference("ann", "Paris.", "Lyon."), preference("ann", "Paris.", "Nice."))
    assert rows.dpo.select("chosen", "rejected").rows() == [("Paris.", "Lyon."), ("Paris.", "Nice.")]


def test_reversed_preference_supersedes():
    rows = make(preference("ann", "Lyon.", "Paris."), preference("ann", "Paris.", "Lyon.", days=1))
    assert rows.dpo.select("chosen", "rejected").row(0) == ("Paris.", "Lyon.")
    assert reasons(rows) == ["superseded"]


def test_even_votes_on_an_answer_cancel_out():
    assert reasons(make(thumb("ann", "Paris."), thumb("bob", "Paris.", -1))) == ["contradictory"] * 2


def test_three_of_four_votes_carry_half_weight():
    rows = make(*(thumb(who, "Paris.") for who in "abc"), thumb("d", "Paris.", -1))
    assert rows.kto.select("label", "weight").row(0) == (True, 0.35)
    assert len(rows.kto["feedback_ids"].item()) == 4


def test_correction_makes_a_target_and_a_pair():
    rows = make(correction("ann", "The capital is Lyon.", "The capital is Paris."))
    pair = rows.dpo.row(0, named=True)
    assert (pair["chosen"], pair["rejected"]) == ("The capital is Paris.", "The capital is Lyon.")
    assert pair["weight"] == 1.0
    assert pair["flip_probability"] == 0.25
    assert "The capital is Paris." in rows.sft["messages"].item()


def test_rewritten_answer_is_a_target_but_no_pair():
    rows = make(correction("ann", "Lyon.", "It has been Paris since 987."))
    assert len(rows.sft) == 1
    assert rows.dpo.is_empty()


def test_unchanged_correction_says_nothing():
    assert reasons(make(correction("ann", "Paris it is.", "Paris  it is."))) == ["unchanged_correction"]


def test_correction_overrules_up_votes_but_not_down_votes():
    rows = make(
        correction("ann", "The capital is Lyon.", "The capital is Paris."),
        thumb("bob", "The capital is Lyon."),
        thumb("eve", "The capital is Lyon.", -1),
    )
    assert reasons(rows) == ["overruled"]
    assert rows.kto["label"].to_list() == [False]


def test_correction_that_others_reject_is_no_target():
    rows = make(
        correction("ann", "Paris.", "Surely not Paris but Lyon."), thumb("bob", "Surely not Paris but Lyon.", -1)
    )
    assert rows.sft.is_empty()
    assert reasons(rows) == ["contradictory"]


def test_tie_yields_no_pair():
    rows = make(preference("ann", "Paris.", "It is Paris.", is_tie=True))
    assert rows.dpo.is_empty()
    assert reasons(rows) == ["tie"]


def test_opposite_preferences_yield_no_pair():
    assert reasons(make(preference("ann", "A.", "B."), preference("bob", "B.", "A."))) == ["contradictory"] * 2


def test_majority_of_three_decides_and_is_less_sure_than_all_three():
    split = make(preference("a", "A.", "B."), preference("b", "A.", "B."), preference("c", "B.", "A.")).dpo
    agreed = make(*(preference(who, "A.", "B.") for who in "abc")).dpo
    assert split.select("chosen", "weight", "flip_probability").row(0) == ("A.", 0.333333, 0.375)
    assert agreed.select("chosen", "weight", "flip_probability").row(0) == ("A.", 1.0, 0.125)


def test_tie_beside_a_decision_counts_half_each_way():
    rows = make(preference("a", "A.", "B."), preference("b", "B.", "A.", is_tie=True))
    assert rows.dpo.select("chosen", "weight", "flip_probability").row(0) == ("A.", 0.5, 0.333333)
    assert len(rows.dpo["feedback_ids"].item()) == 2
    assert rows.drops.is_empty()


def test_preference_between_equal_texts_says_nothing():
    assert reasons(make(preference("ann", "A.", "A.", value_text="another"))) == ["identical_answers"]


def test_answer_that_lost_once_is_no_target():
    rows = make(preference("ann", "A.", "B."), preference("ann", "B.", "C."))
    assert len(rows.dpo) == 2
    assert rows.sft["messages"].str.contains("A.", literal=True).to_list() == [True]


def test_opposite_votes_on_two_answers_make_a_pair():
    rows = make(thumb("ann", "Paris."), thumb("bob", "Lyon.", -1))
    pair = rows.dpo.row(0, named=True)
    assert (pair["chosen"], pair["rejected"]) == ("Paris.", "Lyon.")
    assert (pair["weight"], pair["flip_probability"]) == (0.8, 0.1)
    assert len(pair["feedback_ids"]) == 2


def test_votes_on_other_prompts_make_no_pair():
    assert make(thumb("ann", "Paris."), thumb("bob", "Lyon.", -1, prompt="Largest city?")).dpo.is_empty()


def test_direct_comparison_beats_opposite_votes():
    rows = make(thumb("ann", "Paris."), thumb("bob", "Lyon.", -1), preference("eve", "Lyon.", "Paris."))
    assert rows.dpo.select("chosen", "rejected").rows() == [("Lyon.", "Paris.")]


def test_pairs_of_one_prompt_are_limited_to_the_widest_margins():
    votes = [thumb(who, f"Good {n}.") for n in range(3) for who in "abcd"[: n + 1]]
    votes += [thumb("e", f"Bad {n}.", -1) for n in range(3)]
    rows = make(*votes, max_pairs_per_prompt=2)
    assert rows.dpo.select("chosen", "rejected").rows() == [("Good 2.", "Bad 0."), ("Good 2.", "Bad 1.")]
    assert rows.drops.is_empty()  # every vote is in a KTO row all the same


def test_comparisons_are_kept_beyond_the_limit_and_leave_less_room_for_opposed_votes():
    compared = [preference("ann", "A.", "B."), preference("ann", "A.", "C.")]
    rows = make(*compared, thumb("bob", "Good."), thumb("bob", "Bad.", -1), max_pairs_per_prompt=1)
    assert rows.dpo.select("chosen", "rejected").rows() == [("A.", "B."), ("A.", "C.")]


def test_older_votes_weigh_less():
    rows = make(thumb("ann", "Old.", prompt="One?"), thumb("ann", "New.", prompt="Two?", days=90))
    assert rows.kto.sort("completion")["weight"].to_list() == [0.7, 0.35]


@pytest.mark.parametrize("consent", ["denied", "withdrawn", "unknown", None])
def test_only_granted_consent_trains(consent: str | None):
    rows = make(thumb("ann", "Paris.", consent_training=consent), thumb("bob", "Paris."))
    assert reasons(rows) == ["no_consent"]
    assert len(rows.kto["feedback_ids"].item()) == 1


@pytest.mark.parametrize("consent", ["denied", "withdrawn", "unknown", None])
def test_a_preference_trains_only_if_both_answers_were_granted(consent: str | None):
    rows = make(preference("ann", "Paris.", "Lyon.", other_consent=consent))
    assert (reasons(rows), rows.dpo.height, rows.sft.height) == (["no_consent"], 0, 0)


def test_a_preference_expires_with_the_first_of_its_answers():
    vote = preference("ann", "Paris.", "Lyon.", retention_until=200.0, other_retention_until=100.0)
    assert reasons(make(vote, expired_through=100.0)) == ["expired"]
    assert make(vote, expired_through=99.0).drops.is_empty()


def test_what_was_kept_long_enough_trains_no_more():
    votes = [thumb("ann", "Paris.", retention_until=100.0), thumb("bob", "Paris.", retention_until=101.0)]
    assert reasons(make(*votes, expired_through=100.0)) == ["expired"]
    assert make(*votes).drops.is_empty()


def test_retraction_takes_back_the_vote_that_it_names():
    vote = thumb("ann", "Paris.")
    rows = make(vote, thumb("ann", "Paris.", -1, days=1, supersedes_id=vote["triplet_id"], is_retracted=True))
    assert reasons(rows) == ["retracted"] * 2


def test_later_vote_after_a_retraction_counts():
    vote = thumb("ann", "Paris.", -1)
    back = thumb("ann", "Paris.", -1, days=1, is_retracted=True)
    rows = make(vote, back, thumb("ann", "Paris.", days=2))
    assert rows.kto["label"].to_list() == [True]
    assert sorted(reasons(rows)) == ["superseded"] * 2


def test_vote_may_supersede_one_of_another_kind():
    vote = thumb("ann", "Paris.", -1)
    rows = make(vote, rating("ann", "Paris.", 5, days=1, supersedes_id=vote["triplet_id"]))
    assert rows.drops.rows() == [(vote["triplet_id"], "superseded")]
    assert rows.kto["label"].to_list() == [True]


def test_nobody_supersedes_or_retracts_the_vote_of_another():
    vote = thumb("ann", "Paris.")
    rows = make(vote, thumb("eve", "Lyon.", -1, days=1, supersedes_id=vote["triplet_id"], is_retracted=True))
    assert reasons(rows) == ["retracted"]  # eve's own
    assert rows.kto["feedback_ids"].to_list() == [[vote["triplet_id"]]]


def test_subject_who_judges_equal_answers_twice_counts_once():
    rows = make(thumb("ann", "Paris.", -1), last := thumb("ann", "Paris.", days=1, interaction_id="another"))
    assert reasons(rows) == ["duplicate"]
    assert rows.kto["feedback_ids"].to_list() == [[last["triplet_id"]]]


def test_comment_alone_makes_no_row():
    assert reasons(make(triplet("ann", "Paris.", "comment", value_text="Nice!"))) == ["comment_only"]


def test_implicit_signals_bear_out_votes_but_never_more_than_a_little():
    signals = [triplet(f"u{n}", "Paris.", "copy", value_num=1.0) for n in range(5)]
    rows = make(thumb("ann", "Paris."), *signals, triplet("bob", "Paris.", "abandon", value_num=1.0))
    assert rows.kto.select("base", "weight").row(0) == (0.85, 0.85)
    assert len(rows.kto["feedback_ids"].item()) == 6
    assert reasons(rows) == ["implicit_only"]


def regenerated(new: str, **more: object) -> list[Triplet]:
    return [
        triplet("ann", "Lyon it is.", "regenerate", value_num=1.0),
        triplet("ann", new, "accept", value_num=1.0, parent_interaction_id=f"{QUESTION}|Lyon it is.", **more),
    ]


def test_regenerated_and_accepted_answer_makes_a_weak_pair():
    rows = make(*regenerated("Paris it is."))
    pair = rows.dpo.row(0, named=True)
    assert (pair["chosen"], pair["rejected"], pair["weight"]) == ("Paris it is.", "Lyon it is.", 0.3)
    assert pair["flip_probability"] > 0.25  # less sure than a lone judge
    assert rows.drops.is_empty()


def test_regenerated_answer_of_quite_another_length_makes_no_pair():
    assert reasons(make(*regenerated("Paris it is. " * 9))) == ["implicit_only"] * 2


def test_answer_taken_by_another_than_who_asked_again_makes_no_pair():
    assert make(*regenerated("Paris it is.", subject_id="bob")).dpo.is_empty()


def test_answer_shown_rarely_weighs_more_up_to_a_limit():
    rows = make(*(thumb("ann", f"{p}", propensity=p, prompt=f"{p}?") for p in (0.5, 0.01, 1.0)))
    assert dict(rows.kto.select("completion", "exposure").iter_rows()) == {"0.5": 2.0, "0.01": 10.0, "1.0": 1.0}


@pytest.mark.parametrize("propensity", [0.0, -1.0, 3.0, float("nan"), None])
def test_what_is_no_chance_weighs_nothing_up(propensity: float | None):
    assert make(thumb("ann", "Paris.", propensity=propensity)).kto["exposure"].item() == 1.0


def test_no_triplets_make_no_rows():
    rows = make()
    assert [len(part) for part in (rows.sft, rows.dpo, rows.kto, rows.drops)] == [0, 0, 0, 0]


subjects, answers = st.sampled_from("abcd"), st.sampled_from(["A a a.", "A a b.", "B b b.", "C."])
prompts = st.sampled_from(["One?", "Two?"])
days = st.integers(0, 3)
votes = st.one_of(
    st.builds(thumb, subjects, answers, st.sampled_from([-1, 1]), prompt=prompts, days=days),
    st.builds(rating, subjects, answers, st.integers(1, 5), prompt=prompts, days=days),
    st.builds(correction, subjects, answers, answers, prompt=prompts, days=days),
    st.builds(preference, subjects, answers, answers, prompt=prompts, days=days, is_tie=st.booleans()),
    st.builds(triplet, subjects, answers, st.just("copy"), prompt=prompts, days=days),
)
quick = settings(max_examples=40, deadline=None)


def sorted_rows(rows: Rows) -> list[pl.DataFrame]:
    return [part.sort(part.columns[:3]) for part in (rows.sft, rows.dpo, rows.kto)] + [rows.drops]


@quick
@given(st.lists(votes, max_size=25), st.randoms())
def test_order_of_triplets_does_not_matter(triplets, random):
    shuffled = random.sample(triplets, len(triplets))
    for one, other in zip(sorted_rows(make(*triplets)), sorted_rows(make(*shuffled)), strict=True):
        assert one.equals(other)


@quick
@given(st.lists(votes, max_size=25))
def test_every_triplet_is_in_a_row_or_dropped_for_one_known_reason(triplets):
    rows = make(*triplets)
    named = {one for part in (rows.sft, rows.dpo, rows.kto) for ids in part["feedback_ids"] for one in ids}
    dropped = rows.drops["triplet_id"].to_list()
    assert sorted([*named, *dropped]) == sorted(vote["triplet_id"] for vote in triplets)
    assert set(reasons(rows)) <= set(REASONS)


@quick
@given(st.lists(votes, max_size=25))
def test_no_pair_stands_twice_or_both_ways_round(triplets):
    pairs = [(p, *sorted([a, b])) for p, a, b in make(*triplets).dpo.select("prompt", "chosen", "rejected").rows()]
    assert len(pairs) == len(set(pairs))


@quick
@given(st.integers(0, 8), st.integers(1, 8))
def test_turning_one_vote_up_never_lowers_the_answer(num_up, num_down):
    def standing(up: int, down: int) -> float:
        ups = (thumb(f"up{n}", "A.") for n in range(up))
        kto = make(*ups, *(thumb(f"down{n}", "A.", -1) for n in range(down))).kto
        return 0.0 if kto.is_empty() else kto["weight"].item() * (1 if kto["label"].item() else -1)

    assert standing(num_up, num_down) <= standing(num_up + 1, num_down - 1)


@pytest.mark.parametrize("reason", ["length", "abandoned", "broken_off", "abort", "error", "repetition", "of tomorrow"])
def test_answer_that_was_cut_off_is_marked_and_never_imitated(reason):
    rows = make(
        correction("ann", "Paris is the capital and", "Paris is the capital.", finish_reason=reason),
        thumb("bob", "Lyon, of course, because", prompt="Where?", finish_reason=reason),
        preference("cat", "Rome.", "Rome is, as", prompt="Italy?", other_finish_reason=reason),
    )
    ends = rows.dpo.select("rejected", "chosen_ends", "rejected_ends").sort("rejected").rows()
    assert ends == [("Paris is the capital and", True, False), ("Rome is, as", True, False)]
    assert not any("because" in messages for messages in rows.sft["messages"])
    assert rows.drops.is_empty()
