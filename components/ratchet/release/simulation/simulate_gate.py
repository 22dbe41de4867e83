"""Estimate the gate's error rates, power and votes over thousands of simulated canaries, next to baselines.

Every method sees the same votes. A false rollback is one of a candidate as good as the baseline; a false promotion
is one of a candidate that is worse by just the margin.
"""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np

from ratchet.config import Gate
from ratchet.release.gate.blocks import block_shape
from ratchet.release.gate.eprocess import EProcess, alpha_of_attempt, harm_process, non_inferiority_process
from ratchet.release.simulation import baselines
from ratchet.release.simulation.draws import NEVER, Draws, Floats, Ints, Truth, draw, first_rejections

APPROVAL = 0.80  # about what assistants see
DRIFT = 0.15  # swing of approval that both arms share, up and down
BRIGADE = 0.005  # the cap for voters who belong to no tenant; those of one tenant cannot decide at all (evidence.py)
DROPS = (0.03, 0.05, 0.10, 0.20)
PROMOTE_WEIGHT = 50  # promotion is decided at the last traffic step
Decide = Callable[[Draws], Ints]


@dataclass(frozen=True, kw_only=True)
class ErrorRateRow:
    """How often a method rolled back (or promoted), and after how many canary votes."""

    question: str
    truth: str
    method: str
    share: float
    low: float
    """Of the 95 percent Clopper-Pearson interval."""
    high: float
    median_votes: int | None
    """Canary votes at the decision, over all runs; None where less than half decide."""


@dataclass(frozen=True, kw_only=True)
class Simulated:
    num_runs: int
    num_votes: int
    """Canary votes of a run that is never decided."""
    weight: int
    alpha: float
    alpha_spent: float
    """Alpha that the first attempt of an adapter spends; only first attempts are simulated."""
    margin: float
    rows: tuple[ErrorRateRow, ...]
    looks: tuple[float, ...]
    """Canary votes at which `curves` are given."""
    curves: dict[str, tuple[float, ...]]
    """Share rolled back by then: method and truth."""


def simulate(
    settings: Gate, num_runs: int, num_votes: int, weight: int, seed: int, advance: Callable[[], None] = lambda: None
) -> Simulated:
    """Estimate every row, with `num_runs` canaries each."""
    bound = math.log(1 / alpha_of_attempt(settings.alpha, 1))
    methods = _methods(bound)
    rows, curves = [], {}
    shape = block_shape(weight)
    looks = np.unique(np.geomspace(5, num_votes, 40).round())
    for number, (question, name, truth) in enumerate(_truths()):
        draws = draw(truth, shape, max(1, num_votes // shape[1]), num_runs, seed + number)
        for method, decide in methods.items():
            votes = _votes(decide(draws), draws)
            rows.append(_row(question, name, method, votes))
            if name in ("equal arms", "10 points worse"):
                curves[f"{method}, {name}"] = tuple(float((votes <= look).mean()) for look in looks)
        advance()
    for number, (name, truth) in enumerate(_promotions(settings.non_inferiority_margin)):
        draws = draw(truth, block_shape(PROMOTE_WEIGHT), num_votes, num_runs, seed + 100 + number)
        process = non_inferiority_process(settings.non_inferiority_margin)
        question = "promoted" if truth.drop == 0 else "false promotion"
        rows.append(_row(question, name, "gate", _votes(first_rejections(process, draws, bound), draws)))
        advance()
    return Simulated(
        num_runs=num_runs,
        num_votes=num_votes,
        weight=weight,
        alpha=settings.alpha,
        alpha_spent=alpha_of_attempt(settings.alpha, 1),
        margin=settings.non_inferiority_margin,
        rows=tuple(rows),
        looks=tuple(float(look) for look in looks),
        curves=curves,
    )


NUM_QUESTIONS = 3 + len(DROPS) + 3


def plain(simulated: Simulated) -> dict[str, object]:
    """Return the result as plain values for JSON."""
    return asdict(simulated)


def _methods(bound: float) -> dict[str, Decide]:
    def gate(draws: Draws) -> Ints:
        process: EProcess = harm_process()
        return first_rejections(process, draws, bound)

    return {
        "gate": gate,
        "Flagger's threshold": baselines.flagger_threshold,
        "Kayenta's Mann-Whitney": baselines.kayenta_judge,
        "fixed-sample test": baselines.fixed_sample_test,
        "the same, at every look": baselines.peeking_test,
    }


def _truths() -> list[tuple[str, str, Truth]]:
    false = [
        ("equal arms", Truth(baseline=APPROVAL)),
        (f"equal, drift of {100 * DRIFT:.0f} points", Truth(baseline=APPROVAL - 0.05, drift=DRIFT)),
        (f"equal, {BRIGADE:.1%} brigade", Truth(baseline=APPROVAL, brigade=BRIGADE)),
    ]
    worse = [(f"{100 * drop:.0f} points worse", Truth(baseline=APPROVAL, drop=drop)) for drop in DROPS]
    return [("false rollback", *each) for each in false] + [("rolled back", *each) for each in worse]


def _promotions(margin: float) -> list[tuple[str, Truth]]:
    worse = f"{100 * margin:.0f} points worse"
    return [
        (worse, Truth(baseline=APPROVAL, drop=margin)),
        (f"{worse}, drift of {100 * DRIFT:.0f} points", Truth(baseline=APPROVAL - 0.05, drop=margin, drift=DRIFT)),
        ("equal arms", Truth(baseline=APPROVAL)),
    ]


def _votes(blocks: Ints, draws: Draws) -> Floats:
    return np.where(blocks == NEVER, np.inf, blocks * float(draws.num_b))


def _row(question: str, truth: str, method: str, votes: Floats) -> ErrorRateRow:
    from scipy.stats import binomtest

    decided = int(np.isfinite(votes).sum())
    interval = binomtest(decided, len(votes)).proportion_ci(confidence_level=0.95, method="exact")
    median = float(np.median(votes))
    return ErrorRateRow(
        question=question,
        truth=truth,
        method=method,
        share=decided / len(votes),
        low=float(interval.low),
        high=float(interval.high),
        median_votes=int(median) if math.isfinite(median) else None,
    )
