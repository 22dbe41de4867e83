"""Draw the votes of many canaries of one scenario at once, and fill strata with them as the gate does."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ratchet.release.gate.eprocess import STRATUM_VOTES, Floats, Ints, StratumCounts
from ratchet.release.gate.strata import MAX_TENANT_VOTES
from ratchet.release.simulation.scenarios import DAY_H, Attackers, Scenario

Bools = NDArray[np.bool_]
Columns = tuple[Floats, Bools, Bools, Bools, Ints, Ints]
"""Hours, then the fields of `Draws`."""


@dataclass(frozen=True)
class Draws:
    """Votes of each run (row), in the order in which their answers were served (column)."""

    is_canary: Bools
    is_up: Bools
    is_read: Bools
    """Whether the vote counts: it came in time, and both arms had traffic."""
    span: Ints
    """Number of the span of constant weight."""
    tenant: Ints
    """0 to the number of tenants less 1."""

    @property
    def num_tenants(self) -> int:
        return int(self.tenant.max(initial=0)) + 1


def draw(scenario: Scenario, votes: int, weight: int, horizon_h: float, runs: int, rng: np.random.Generator) -> Draws:
    """Draw `runs` canaries. `votes`, `weight` (percent): where the scenario names none; `horizon_h`: time for votes."""
    votes, weight = scenario.votes or votes, scenario.weight or weight
    hours = _hours(scenario, votes, runs, rng)
    weights = np.where(hours < scenario.weight_zero_h, 0, weight)
    if scenario.final_weight is not None:
        weights = np.where(hours >= DAY_H / 2, scenario.final_weight, weights)
    is_canary = rng.random(hours.shape) < weights / 100
    approval = np.where(is_canary, _worse(scenario, liked := _approval(scenario, hours, rng)), liked)
    is_up = rng.random(hours.shape) < approval
    is_cast = _casts(scenario, hours, is_canary, is_up, rng)
    delay = np.where(is_canary, scenario.canary_delay_h, 0.0)
    if scenario.down_delay_h:
        delay = delay + np.where(is_up, 0.0, rng.exponential(scenario.down_delay_h, hours.shape))
    tenant = rng.integers(0, max(1, scenario.tenants), hours.shape)
    has_stepped = (hours >= DAY_H / 2) & (scenario.final_weight is not None)
    span = (hours >= scenario.weight_zero_h).astype(np.int64) + has_stepped
    honest: Columns = (hours, is_canary, is_up, is_cast & (delay <= horizon_h) & (weights > 0), span, tenant)
    columns: list[Any] = list(honest)
    if scenario.attackers is not None:
        attack = _attack(scenario.attackers, weight, scenario.tenants, runs, rng)
        columns = [np.concatenate(pair, axis=1) for pair in zip(honest, attack, strict=True)]
        order = columns[0].argsort(axis=1)
        columns = [np.take_along_axis(column, order, axis=1) for column in columns]
    return Draws(*columns[1:])


def _worse(scenario: Scenario, approval: Floats) -> Floats:
    """Return the candidate's approval where the baseline's is `approval`."""
    edge = 1e-6
    odds = np.clip(approval - scenario.drop, edge, 1 - edge)
    odds = odds / (1 - odds) * np.exp(scenario.log_ratio)
    chances: Floats = odds / (1 + odds)
    return chances


def _hours(scenario: Scenario, votes: int, runs: int, rng: np.random.Generator) -> Floats:
    if scenario.bursts:
        bursts = np.sort(rng.integers(0, scenario.bursts, (runs, votes)), axis=1)
        hours: Floats = (bursts + 0.5) * DAY_H / scenario.bursts
        return hours
    return np.broadcast_to((np.arange(votes) + 0.5) * DAY_H / votes, (runs, votes))


def _approval(scenario: Scenario, hours: Floats, rng: np.random.Generator) -> Floats:
    first, last = scenario.approval
    runs = len(hours)
    if scenario.shocks:
        levels = rng.choice([first, last], (runs, scenario.shocks))
        period = np.minimum((hours * scenario.shocks / DAY_H).astype(np.int64), scenario.shocks - 1)
        shocked: Floats = np.take_along_axis(levels, period, axis=1)
        return shocked
    approval = first + (last - first) * hours / DAY_H
    if scenario.swing:
        phases, periods = rng.uniform(0, 1, (runs, 1)), rng.uniform(0.5, 4, (runs, 1))
        approval = approval + scenario.swing * np.sin(2 * np.pi * (phases + periods * hours / DAY_H))
    return approval


def _casts(scenario: Scenario, hours: Floats, is_canary: Bools, is_up: Bools, rng: np.random.Generator) -> Bools:
    """Return whether each answer gets its vote."""
    chance = np.where(is_canary, scenario.canary_eagerness, 1.0)
    if scenario.unhappy_eagerness > 1:
        chance = np.where(is_up, chance / scenario.unhappy_eagerness, chance)
    is_silent = is_canary & (hours < scenario.canary_silent_h)
    casts: Bools = (rng.random(hours.shape) < chance) & ~is_silent
    return casts


def _attack(attackers: Attackers, weight: int, tenants: int, runs: int, rng: np.random.Generator) -> Columns:
    """Return the attackers' votes, as the columns of the honest ones; the span is the first."""
    shape = (runs, attackers.num)
    hours = rng.uniform(0, attackers.until_h, shape)
    is_canary = (
        rng.random(shape) < weight / 100 if attackers.seeks is None else np.full(shape, attackers.seeks == "canary")
    )
    is_up = is_canary == attackers.for_candidate
    tenant = np.full(shape, tenants) if attackers.is_tenant else rng.integers(0, max(1, tenants), shape)
    return hours, is_canary, is_up, np.ones(shape, dtype=bool), np.ones(shape, dtype=np.int64), tenant


def fill(draws: Draws) -> StratumCounts:
    """Return the strata as `ratchet.release.gate.strata.new_strata` fills them: axes run, tenant, stratum."""
    runs, votes = draws.is_up.shape
    tenants, everyone = draws.num_tenants, np.arange(runs)
    capacity = votes // STRATUM_VOTES + int(draws.span.max(initial=0)) + 2
    sums = np.zeros((4, runs, tenants, capacity), dtype=np.int64)
    stratum, size = np.zeros(runs, dtype=np.int64), np.zeros(runs, dtype=np.int64)
    span = draws.span[:, 0].copy()
    for column in range(votes):
        is_read, tenant = draws.is_read[:, column], draws.tenant[:, column]
        is_next = is_read & (size > 0) & ((size == STRATUM_VOTES) | (draws.span[:, column] != span))
        stratum, size = stratum + is_next, np.where(is_next, 0, size)
        span = np.where(is_read, draws.span[:, column], span)
        if tenants > 1:  # a public without tenants may decide alone
            is_read = is_read & (sums[0, everyone, tenant, stratum] < MAX_TENANT_VOTES)
        size = size + is_read
        is_canary, is_up = draws.is_canary[:, column], draws.is_up[:, column]
        for row, adds in enumerate((is_read, is_read & is_up, is_read & is_canary, is_read & is_canary & is_up)):
            sums[row, everyone, tenant, stratum] += adds
    is_open = (np.arange(capacity) == stratum[:, None]) & (size < STRATUM_VOTES)[:, None]  # the last is read once full
    sums *= ~is_open[None, :, None, :]
    return StratumCounts(*sums)
