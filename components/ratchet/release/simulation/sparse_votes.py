"""Simulate canaries whose users seldom vote: the time to a decision on votes alone, and with duels beside them.

Each answer is good or not. The judge sees which of two is better in `JUDGE_ACCURACY` of the pairs that differ, and
calls the rest the wrong way round: a kappa of 0.6 on pairs that differ.
"""

import math
from dataclasses import dataclass

import numpy as np

from ratchet.release.gate.duels import harm_duels, mix
from ratchet.release.gate.eprocess import STRATUM_VOTES, Floats, StratumCounts, harm_test

ANSWERS_AN_HOUR = 1000
DAYS = 7
DUELS_AN_HOUR = 20
JUDGE_ACCURACY = 0.8
APPROVAL = 0.80


@dataclass(frozen=True, kw_only=True)
class SparseVotes:
    """A canary at `weight` percent; `share` of its answers are voted on."""

    share: float
    drop: float
    weight: int
    has_duels: bool

    @property
    def name(self) -> str:
        truth = f"{100 * self.drop:.0f} points worse" if self.drop else "equal arms"
        evidence = "votes and duels" if self.has_duels else "votes alone"
        return f"{truth}, {100 * self.share:g}% of answers voted on, {evidence}"


def sparse_scenarios(weight: int) -> list[SparseVotes]:
    return [
        SparseVotes(share=share, drop=drop, weight=weight, has_duels=has_duels)
        for drop in (0.0, 0.10)
        for share in (0.002, 0.01, 0.05)
        for has_duels in (False, True)
    ]


def hours_to_rollback(scenario: SparseVotes, runs: int, bound: float, rng: np.random.Generator) -> Floats:
    """Return the hours until each run is rolled back; inf if it is not within DAYS."""
    votes = max(STRATUM_VOTES, int(DAYS * 24 * ANSWERS_AN_HOUR * scenario.share))
    strata = votes // STRATUM_VOTES
    canary = rng.binomial(STRATUM_VOTES, scenario.weight / 100, (runs, strata))
    canary_ups = rng.binomial(canary, APPROVAL - scenario.drop)
    ups = canary_ups + rng.binomial(STRATUM_VOTES - canary, APPROVAL)
    log_e = harm_test().log_e(StratumCounts(np.full_like(canary, STRATUM_VOTES), ups, canary, canary_ups))
    read_at = np.arange(1, strata + 1) * STRATUM_VOTES / (ANSWERS_AN_HOUR * scenario.share)
    if not scenario.has_duels:
        return _first(log_e >= bound, read_at)
    duels = DAYS * 24 * DUELS_AN_HOUR
    judged_at = np.arange(1, duels + 1) / DUELS_AN_HOUR
    scores = _scores(scenario, (runs, duels), rng)
    moments = np.sort(np.concatenate([read_at, judged_at]))
    with_none = np.concatenate([np.zeros((runs, 1)), log_e], axis=1)
    mixed = mix(
        with_none,
        harm_duels().log_e(scores, np.ones_like(scores)),
        np.searchsorted(read_at, moments, side="right"),
        np.searchsorted(judged_at, moments, side="right"),
    )
    return _first(mixed >= bound, moments)


def _scores(scenario: SparseVotes, shape: tuple[int, int], rng: np.random.Generator) -> Floats:
    candidate = rng.random(shape) < APPROVAL - scenario.drop
    champion = rng.random(shape) < APPROVAL
    is_right = rng.random(shape) < JUDGE_ACCURACY
    return np.where(candidate == champion, 0.5, np.where(candidate == is_right, 1.0, 0.0))


def _first(is_true: "np.ndarray[tuple[int, ...], np.dtype[np.bool_]]", hours: Floats) -> Floats:
    return np.where(is_true.any(axis=1), hours[is_true.argmax(axis=1)], math.inf)
