"""Duels: the answers of both arms to one prompt, compared by a judge in both orders; evidence where votes are sparse.

A duel's score is 1 if the candidate's answer won, 0 if it lost, 0.5 for a tie. The tests bet on the mean score: a
wealth that grows by 1 + bet * (null - score) is an e-process for "the mean is at least the null", whatever the
distribution of scores in [0, 1] (Waudby-Smith and Ramdas, Estimating means of bounded random variables by betting,
2024, section 4). Votes and duels are mixed half and half: the average of two e-processes is one.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict

from ratchet.release.gate.eprocess import Floats, Ints

BETS = {0.3: 0.5, 0.8: 0.5}  # small ones find small differences in many duels, large ones large ones in few


class Duel(BaseModel):
    """One duel. `judged_at`: Unix seconds; `tenant`: of the user who asked."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    interaction_id: str
    judged_at: float
    score: float
    tenant: str = "default"


@dataclass(frozen=True)
class DuelTest:
    """A mixture of bets that the mean score is below `null`, or above it."""

    null: float
    is_harm: bool
    """Whether low scores are evidence."""
    bets: Mapping[float, float]
    """Each bet with its share of the evidence."""

    def log_e(self, scores: Floats, counts: Floats) -> Floats:
        """Return the log evidence after each duel along the last axis, with the one before any.

        `counts`: 1 for a duel that counts, 0 for one that is left out; its leading axes are experiments of their own.
        """
        gains = (self.null - scores) if self.is_harm else (scores - self.null)
        log_e = np.full((*counts.shape[:-1], counts.shape[-1] + 1), -np.inf)
        for bet, share in self.bets.items():
            sums = (counts * np.log1p(bet * gains)).cumsum(axis=-1)
            start = np.zeros((*counts.shape[:-1], 1))
            np.logaddexp(log_e, math.log(share) + np.concatenate([start, sums], axis=-1), out=log_e)
        return log_e


def harm_duels() -> DuelTest:
    """Return the test for harm: evidence that the candidate loses more often than it wins."""
    return DuelTest(0.5, is_harm=True, bets=BETS)


def non_inferiority_duels(margin: float) -> DuelTest:
    """Return the test for non-inferiority: evidence that the mean score is above one half less `margin`."""
    return DuelTest(0.5 - margin, is_harm=False, bets=BETS)


def mix(votes: Floats, duels: Floats, num_strata: Ints, num_duels: Ints) -> Floats:
    """Return the log of the average evidence at each moment: after so many strata and so many duels.

    `votes`, `duels`: log evidence with the one before any, along the last axis.
    """
    mixed: Floats = np.logaddexp(votes[..., num_strata], duels[..., num_duels]) - math.log(2)
    return mixed
