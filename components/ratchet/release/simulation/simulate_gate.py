"""Estimate the gate's error rates, power and votes over thousands of simulated canaries of each scenario.

The votes are drawn in arrays; strata are filled by the gate's rules, and the gate's own tests and decisions weigh them.
Decisions are looked for after every stratum, which is as often as the gate's evidence changes.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ratchet.config import Gate
from ratchet.release.gate.design import alpha_of_attempt
from ratchet.release.gate.eprocess import ConditionalTest, Floats, Ints, StratumCounts, harm_test, non_inferiority_test
from ratchet.release.simulation.baselines import METHODS
from ratchet.release.simulation.draws import draw, fill
from ratchet.release.simulation.scenarios import Scenario, scenarios
from ratchet.release.simulation.sparse_votes import SparseVotes, hours_to_rollback, sparse_scenarios

BATCH_RUNS = 1000  # bounds the memory
GATE = "gate"
SPARSE = 1  # keeps the seeds of sparse votes apart
CURVES = ("equal arms", "10 points worse")
HOUR_S = 3600.0


@dataclass(frozen=True, kw_only=True)
class SimulatedRow:
    """How often a method decided in one scenario, and after how many canary votes."""

    name: str
    method: str
    """`GATE`, or one of `baselines.METHODS`."""
    question: str
    runs: int
    share: float
    """Of the canaries that were rolled back (promoted)."""
    low: float
    """Of the 95 percent Clopper-Pearson interval."""
    high: float
    is_error: bool
    """Whether the decision was wrong."""
    has_attackers: bool
    median_votes: int | None
    """Canary votes at the decision, over all runs; None where less than half decide, or where hours are counted."""
    median_hours: float | None = None
    """Hours until the decision, where votes are sparse."""


@dataclass(frozen=True, kw_only=True)
class Simulated:
    num_runs: int
    num_votes: int
    """Canary votes of a run that is never decided, where a scenario names no number of votes."""
    weight: int
    alpha: float
    alpha_spent: float
    """Alpha that the first attempt of an adapter spends; only first attempts are simulated."""
    margin: float
    rows: tuple[SimulatedRow, ...]
    looks: tuple[float, ...]
    """Canary votes at which `curves` are given."""
    curves: dict[tuple[str, str], tuple[float, ...]]
    """Share rolled back by then, by scenario and method."""


def simulate(
    settings: Gate, num_runs: int, num_votes: int, weight: int, seed: int, advance: Callable[[], None] = lambda: None
) -> Simulated:
    """Estimate every row, with `num_runs` canaries each; `advance` is called after each."""
    looks = np.unique(np.geomspace(5, num_votes, 40).round())
    rows, curves = [], {}
    for number, scenario in enumerate(_scenarios(settings)):
        for method, votes in decide(scenario, settings, num_runs, num_votes, weight, [seed, number]).items():
            rows.append(_row(scenario, method, votes))
            if scenario.name in CURVES:
                curves[scenario.name, method] = tuple(float((votes <= look).mean()) for look in looks)
        advance()
    bound = math.log(1 / alpha_of_attempt(settings.alpha, 1))
    for number, sparse in enumerate(sparse_scenarios(weight)):
        hours = hours_to_rollback(sparse, num_runs, bound, np.random.default_rng([seed, SPARSE, number]))
        rows.append(_sparse_row(sparse, hours))
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


def decide(
    scenario: Scenario, settings: Gate, num_runs: int, num_votes: int, weight: int, seed: Sequence[int]
) -> dict[str, Floats]:
    """Return, by method, the canary votes at each run's decision; inf for a run that is never decided."""
    is_harm = scenario.question == "rollback"
    test = harm_test() if is_harm else _non_inferiority_test(settings)
    horizon_s = settings.harm_horizon_s if is_harm else settings.promotion_horizon_s
    bound = math.log(1 / alpha_of_attempt(settings.alpha, 1))
    methods = {GATE: lambda draws: first_decisions(test, fill(draws), bound)}
    if scenario.is_compared:
        methods |= METHODS
    rng = np.random.default_rng(seed)
    votes: dict[str, list[Floats]] = {method: [] for method in methods}
    for first in range(0, num_runs, BATCH_RUNS):
        runs = min(BATCH_RUNS, num_runs - first)
        draws = draw(scenario, num_votes * 100 // weight, weight, horizon_s / HOUR_S, runs, rng)
        for method, found in votes.items():
            found.append(methods[method](draws))
    return {method: np.concatenate(found) for method, found in votes.items()}


def first_decisions(test: ConditionalTest, by_tenant: StratumCounts, bound: float) -> Floats:
    """Return the canary votes of each run at its first decision; inf if there is none. Axes: run, tenant, stratum."""
    total = _map(by_tenant, lambda counts: counts.sum(axis=1))
    stands = test.log_e(total) >= bound
    some = np.flatnonzero(stands.any(axis=1))
    if by_tenant.votes.shape[1] > 1 and len(some):
        tenants = _map(by_tenant, lambda counts: counts[some])
        without = test.log_e(_map(total, lambda counts: counts[some][:, None]).without(tenants)) >= bound
        stands[some] &= without.all(axis=1)
    votes = np.take_along_axis(total.canary.cumsum(axis=1), stands.argmax(axis=1)[:, None], axis=1)[:, 0]
    return np.where(stands.any(axis=1), votes.astype(np.float64), np.inf)


def _scenarios(settings: Gate) -> tuple[Scenario, ...]:
    return scenarios(_non_inferiority_test(settings).null)


def _non_inferiority_test(settings: Gate) -> ConditionalTest:
    return non_inferiority_test(settings.non_inferiority_margin, settings.reference_approval)


def _map(counts: StratumCounts, change: Callable[[Ints], Ints]) -> StratumCounts:
    return StratumCounts(*(change(each) for each in (counts.votes, counts.ups, counts.canary, counts.canary_ups)))


def _row(scenario: Scenario, method: str, votes: Floats) -> SimulatedRow:
    share, low, high, median = _summary(votes)
    return SimulatedRow(
        name=scenario.name,
        method=method,
        question=scenario.question,
        runs=len(votes),
        share=share,
        low=low,
        high=high,
        is_error=scenario.is_error,
        has_attackers=scenario.attackers is not None,
        median_votes=int(median) if math.isfinite(median) else None,
    )


def _sparse_row(scenario: SparseVotes, hours: Floats) -> SimulatedRow:
    share, low, high, median = _summary(hours)
    return SimulatedRow(
        name=scenario.name,
        method=GATE,
        question="rollback",
        runs=len(hours),
        share=share,
        low=low,
        high=high,
        is_error=not scenario.drop,
        has_attackers=False,
        median_votes=None,
        median_hours=round(median, 1) if math.isfinite(median) else None,
    )


def _summary(decisions: Floats) -> tuple[float, float, float, float]:
    """Return the share that is finite, its 95 percent interval, and the median of all."""
    from scipy.stats import binomtest

    decided = int(np.isfinite(decisions).sum())
    interval = binomtest(decided, len(decisions)).proportion_ci(confidence_level=0.95, method="exact")
    return decided / len(decisions), float(interval.low), float(interval.high), float(np.median(decisions))


def num_scenarios(settings: Gate) -> int:
    """Return how many scenarios `simulate` goes through."""
    return len(_scenarios(settings)) + len(sparse_scenarios(1))


def plain(simulated: Simulated) -> list[dict[str, object]]:
    """Return the gate's rows for JSON: an error's rate as `false_rollback` or `false_promotion`, else `power`."""
    return [_plain_row(row) for row in simulated.rows if row.method == GATE]


def _plain_row(row: SimulatedRow) -> dict[str, object]:
    measure = f"false_{row.question}" if row.is_error else "power"
    return {
        "name": row.name,
        "runs": row.runs,
        measure: row.share,
        "low": row.low,
        "high": row.high,
        "median_votes": row.median_votes,
        "median_hours": row.median_hours,
        "has_attackers": row.has_attackers,
    }


def decision_of(row: SimulatedRow) -> str:
    """Return the decision that the row counts, in words."""
    if row.is_error:
        return f"false {row.question}"
    return "rolled back" if row.question == "rollback" else "promoted"


def median_of(row: SimulatedRow) -> str:
    """Return the row's median time to the decision, for a table."""
    if row.median_hours is not None:
        return f"{row.median_hours:g} h"
    return str(row.median_votes or "–")
