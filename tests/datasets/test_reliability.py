import numpy as np
import polars as pl

from ratchet.config import BuildDatasets
from ratchet.datasets.eligibility import assess_eligibility
from ratchet.datasets.interning import intern
from ratchet.datasets.reliability import ORDINARY, dawid_skene, trusted
from ratchet.datasets.weights import MILLI
from support.triplet_factory import frame, preference, thumb


def trust(*votes: dict) -> dict[str, int]:
    table = frame(*votes)
    found = trusted(assess_eligibility(intern(table), BuildDatasets()))
    return dict(zip(table.sort("triplet_id")["subject_id"], found["trust"], strict=True))


def test_the_few_who_vote_against_everybody_are_not_trusted():
    votes = [thumb(who, f"A{n}.", 1 - 2 * (n % 2), prompt=f"Q{n}?") for who in "abcd" for n in range(20)]
    votes += [thumb("liar", f"A{n}.", 2 * (n % 2) - 1, prompt=f"Q{n}?") for n in range(20)]
    assert trust(*votes) == {**dict.fromkeys("abcd", MILLI), "liar": 0}


def test_who_votes_little_or_alone_counts_as_ordinary():
    votes = [thumb("ann", f"A{n}.", prompt=f"Q{n}?") for n in range(50)]  # nobody else says anything
    votes += [thumb("bob", "B."), thumb("eve", "B.", -1)]
    assert trust(*votes) == {"ann": MILLI, "bob": MILLI, "eve": MILLI}


def test_preferences_count_whichever_way_round_they_are_told():
    votes = [preference(who, f"A{n}.", f"B{n}.", prompt=f"Q{n}?") for who in "abc" for n in range(20)]
    votes += [preference("liar", f"B{n}.", f"A{n}.", prompt=f"Q{n}?") for n in range(20)]
    assert trust(*votes)["liar"] == 0


def test_good_raters_are_told_from_poor_ones():
    rng = np.random.default_rng(0)
    true = rng.choice([0.55, 0.95], 60)
    rater, item = np.repeat(np.arange(60), 100), rng.integers(0, 1000, 6000)
    is_yes = (rng.random(1000) < 0.5)[item] ^ (rng.random(6000) > true[rater])
    found = dawid_skene(rater, np.unique(item, return_inverse=True)[1], is_yes)
    assert np.abs(found - true).mean() < 0.06
    assert ((found > 0.75) == (true > 0.75)).mean() > 0.95


def test_no_votes_have_no_raters():
    assert len(dawid_skene(np.zeros(0, dtype=int), np.zeros(0, dtype=int), np.zeros(0, dtype=bool))) == 0
    assert trusted(assess_eligibility(intern(frame()), BuildDatasets())).schema["trust"] == pl.Int64
    assert 0.5 < ORDINARY < 1
