import polars as pl

from ratchet.config import BuildDatasets
from ratchet.datasets.eligibility import assess_eligibility
from ratchet.datasets.interning import intern
from ratchet.datasets.vote_abuse import brigading_signs, held_for_review, over_cap
from support.triplet_factory import Triplet, frame, thumb


def signals(*votes: Triplet) -> pl.DataFrame:
    return assess_eligibility(intern(frame(*votes)), BuildDatasets())


def crowd(days: float = 0) -> list[Triplet]:
    """Forty people, half of whom like what they saw, once each."""
    return [thumb(f"u{n}", "Fine.", 1 - 2 * (n % 2), prompt=f"Q{n}?", days=days) for n in range(40)]


def brigade(num_accounts: int = 6, days: float = 0, **more: object) -> list[Triplet]:
    young = {"account_age_days": 0.5, "comment": "utter rubbish, all of it", **more}
    return [
        thumb(f"b{n}", f"A{at}.", -1, prompt=f"P{at}?", days=days, **young)
        for n in range(num_accounts)
        for at in range(6)
    ]


def who_waits(votes: list[Triplet], hold_hours: float = 72) -> set[str]:
    keys = signals(*votes)
    table = frame(*votes).sort("triplet_id")
    return set(table["subject_id"].gather(held_for_review(keys, hold_hours)["row"]))


def test_brigade_of_young_accounts_with_one_comment_waits():
    assert who_waits([*crowd(), *brigade()]) == {f"b{n}" for n in range(6)}


def test_votes_are_released_once_they_are_older_than_the_hold():
    assert who_waits([*crowd(days=4), *brigade()]) == set()


def test_people_of_one_mind_are_not_enough():
    assert who_waits([*crowd(), *brigade(2, account_age_days=300.0, comment=None)]) == set()


def test_one_sign_is_not_enough():
    votes = [*crowd(), *brigade(1, comment=None)]
    assert brigading_signs(signals(*votes)).get_column("num_signs").to_list() == [1]  # a young account that votes a lot
    assert who_waits(votes) == set()


def test_in_a_small_circle_nobody_waits():
    assert who_waits(brigade()) == set()


def test_no_hold_holds_nobody():
    assert who_waits([*crowd(), *brigade()], hold_hours=0) == set()


def capped(votes: list[Triplet], **settings: float) -> int:
    return len(over_cap(signals(*votes), BuildDatasets(**settings)))


def flood(num: int, days: float = 0) -> list[Triplet]:
    return [thumb("flood", "Fine.", prompt=f"F{days}-{n}?", days=days) for n in range(num)]


def test_one_subject_has_twenty_votes_a_day():
    assert capped([*crowd(), *flood(50)], max_rater_share=1) == 30
    assert capped([*crowd(), *flood(15), *flood(15, days=1)], max_rater_share=1) == 0


def test_one_subject_has_a_small_share_of_a_dataset():
    votes = [*crowd(), *(vote for day in range(10) for vote in flood(10, days=day))]
    # 140 votes of 41 subjects: three fair shares are ten votes and a bit.
    assert capped(votes) == 89


def test_few_raters_may_say_all_there_is():
    assert capped([thumb(who, f"A{n}.", prompt=f"Q{n}?") for who in "abc" for n in range(100)]) == 0


def test_no_votes_are_over_no_cap():
    assert capped([]) == 0
