"""What is planted in a crowd's votes is found, and little else. `make bench` prints the same at a million votes."""

import polars as pl
import pytest
from benchmarks.crowd import DETECTED, crowd, score

from ratchet.config import BuildDatasets, Config
from ratchet.datasets.build_datasets import decide
from ratchet.datasets.eligibility import assess_eligibility
from ratchet.datasets.interning import intern
from ratchet.datasets.split import FROZEN

# (precision, recall); liars are told from their own fifty votes, some of which nobody else cast on the same answer.
LEAST = {
    **dict.fromkeys(DETECTED, (0.97, 0.97)),
    "unreliable_rater": (0.7, 0.9),
    "near_duplicate": (0.9, 0.9),  # where a vote on the first was unusable, the copy may be the better supported
    "contradictory": (0.0, 0.95),  # an honest crowd contradicts itself, too
}


@pytest.fixture(scope="module")
def scores() -> dict[str, tuple[float, float]]:
    made = crowd(20_000, seed=1)
    texts = intern(made.triplets)
    drops = decide(
        assess_eligibility(texts, BuildDatasets(), made.expired_through), texts, Config(), pl.DataFrame(schema=FROZEN)
    )[0].drops
    found = drops.select(triplet_id=texts.triplet_ids.gather(drops["row"]), reason="reason")
    return score(found, made.planted)


@pytest.mark.parametrize("reason", DETECTED)
def test_planted_votes_are_found(scores: dict[str, tuple[float, float]], reason: str):
    precision, recall = scores[reason]
    assert (precision >= LEAST[reason][0], recall >= LEAST[reason][1]) == (True, True), (precision, recall)
