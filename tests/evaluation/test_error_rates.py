"""The gate's promises, by simulation. The slow test holds them at two thousand draws."""

import numpy as np
import pytest

from ratchet.config import EvaluateAdapter
from ratchet.evaluation.error_rates import Rates, Truth, simulate, truths

SETTINGS = EvaluateAdapter()
PROMISED = [world for world in truths(SETTINGS) if world.promise]
BROKEN_P = 0.001  # so unlikely an excess of errors breaks the promise; the seed is fixed, so it is no flake


def rates(world: Truth, num_pairs: int, draws: int, resamples: int) -> Rates:
    settings = SETTINGS.model_copy(update={"resamples": resamples})
    return simulate(world, num_pairs=num_pairs, draws=draws, settings=settings, rng=np.random.default_rng(0))


@pytest.mark.parametrize("world", PROMISED[:1] + PROMISED[3:4], ids=lambda world: world.name)
def test_errors_are_no_more_frequent_than_stated(world: Truth) -> None:
    found = rates(world, 60, draws=200, resamples=500)
    assert found.excess_p is not None and found.excess_p > BROKEN_P, found


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("world", PROMISED, ids=lambda world: world.name)
def test_errors_are_no_more_frequent_than_stated_in_many_draws(world: Truth) -> None:
    found = rates(world, 40, draws=2000, resamples=1000)
    assert found.excess_p is not None and found.excess_p > BROKEN_P, found


def test_a_much_better_candidate_passes_and_one_that_turned_unsafe_fails() -> None:
    better, unsafe = truths(SETTINGS)[-2:]
    assert rates(better, 100, draws=40, resamples=500).verdicts["pass"] > 30
    assert rates(unsafe, 100, draws=40, resamples=500).verdicts["pass"] < 30


def test_without_a_promise_there_is_nothing_to_break() -> None:
    found = rates(Truth(name="any"), 30, draws=2, resamples=200)
    assert (found.of, found.at_most, found.excess_p) == (None, None, None)
    assert sum(found.verdicts.values()) == 2
