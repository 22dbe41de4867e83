"""The e-process keeps its promise: exactly per block, and by simulation over whole runs."""

import itertools
import math
import random

import pytest

from ratchet.release.gate.eprocess import (
    Block,
    EProcess,
    alpha_of_attempt,
    harm_process,
    non_inferiority_process,
    reverse_projection,
)

ALPHA = 0.05
BOUND = math.log(1 / ALPHA)
PAST = Block(num_a=30, up_a=19, num_b=10, up_b=7)
THETAS = [0.0, 0.02, 0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 0.98, 1.0]


def binomial(n: int, k: int, p: float) -> float:
    return math.comb(n, k) * p**k * (1 - p) ** (n - k)


def mean_factors(process: EProcess, num_a: int, num_b: int, theta_a: float, theta_b: float) -> list[float]:
    """Exact mean of each alternative's factor, over every outcome of the next block."""
    means = [0.0] * len(process.grid)
    for up_a, up_b in itertools.product(range(num_a + 1), range(num_b + 1)):
        chance = binomial(num_a, up_a, theta_a) * binomial(num_b, up_b, theta_b)
        after = process.after(Block(num_a=num_a, up_a=up_a, num_b=num_b, up_b=up_b))
        for i, (new, old) in enumerate(zip(after.log_factors, process.log_factors, strict=True)):
            means[i] += chance * math.exp(new - old)
    return means


@pytest.mark.parametrize("shape", [(4, 1), (1, 1), (1, 4), (19, 1), (3, 2)])
@pytest.mark.parametrize("past", [None, PAST], ids=["fresh", "with past"])
@pytest.mark.parametrize(
    "process", [harm_process(), non_inferiority_process(0.05), non_inferiority_process(0.3)], ids=repr
)
def test_a_block_never_gains_on_average_anywhere_in_the_null(process: EProcess, past: Block | None, shape) -> None:
    process = process.after(past) if past else process
    for theta_a, theta_b in itertools.product(THETAS, THETAS):
        gap = theta_b - (theta_a - process.margin)
        if (gap >= 0) if process.is_harm else (gap <= 0):
            assert max(mean_factors(process, *shape, theta_a, theta_b)) <= 1 + 1e-9


def test_a_block_gains_on_average_in_the_alternative() -> None:
    assert min(mean_factors(harm_process().after(PAST), 4, 1, 0.8, 0.2)) > 1
    assert min(mean_factors(non_inferiority_process(0.1).after(PAST), 1, 1, 0.5, 0.95)) > 1


def test_projection_is_the_minimum_of_the_divergence() -> None:
    def divergence(t: float) -> float:
        def kl(p: float, q: float) -> float:
            return p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))

        return 4 * kl(0.8, t) + kl(0.85, t - 0.1)

    best = min((0.1 + i * 1e-5 for i in range(1, 90_000)), key=divergence)
    assert reverse_projection(0.8, 0.85, 4, 1, 0.1) == pytest.approx(best, abs=2e-5)


def decides(process: EProcess, theta_a: float, theta_b: float, shape, num_blocks: int, rng: random.Random) -> int:
    """Candidate votes until the null is rejected; 0 if it never is."""
    num_a, num_b = shape
    for i in range(1, num_blocks + 1):
        up_a, up_b = (sum(rng.random() < p for _ in range(n)) for n, p in ((num_a, theta_a), (num_b, theta_b)))
        process = process.after(Block(num_a=num_a, up_a=up_a, num_b=num_b, up_b=up_b))
        if process.log_e_max >= BOUND:
            return i * num_b
    return 0


@pytest.mark.parametrize(
    ("process", "theta_a", "theta_b", "shape"),
    [(harm_process(), 0.8, 0.8, (4, 1)), (non_inferiority_process(0.1), 0.8, 0.7, (1, 1))],
    ids=["equal arms raise no harm", "worse by the margin is not passed"],
)
def test_error_rate_holds_at_every_look(process, theta_a, theta_b, shape) -> None:
    rng = random.Random(7)
    errors = sum(decides(process, theta_a, theta_b, shape, 120, rng) > 0 for _ in range(200))
    assert errors / 200 <= ALPHA


@pytest.mark.parametrize(
    ("process", "theta_a", "theta_b", "shape", "at_most"),
    [
        (harm_process(), 0.8, 0.6, (4, 1), 60),  # the reference simulation's median is 39
        (non_inferiority_process(0.1), 0.4, 0.8, (1, 1), 40),  # a much better candidate is soon known to be no worse
    ],
    ids=["harm", "improvement"],
)
def test_a_large_effect_is_decided_with_few_votes(process, theta_a, theta_b, shape, at_most) -> None:
    rng = random.Random(7)
    votes = sorted(decides(process, theta_a, theta_b, shape, 300, rng) for _ in range(60))
    assert votes[0] > 0
    assert votes[30] <= at_most


def test_attempts_share_one_alpha() -> None:
    assert sum(alpha_of_attempt(0.05, k) for k in range(1, 10_000)) == pytest.approx(0.05, rel=1e-3)
    assert alpha_of_attempt(0.05, 2) < alpha_of_attempt(0.05, 1) < 0.05
