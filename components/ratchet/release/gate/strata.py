"""Group one canary's votes into strata, by the time at which their answers were served. Pure.

A stratum is cut where the route's weight changes, and by the number of votes, never by arm or direction. It is read
when each of its answers has had its time for votes, and is never changed after that.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from ratchet.release.gate.design import CanaryDesign, Place
from ratchet.release.gate.eprocess import STRATUM_VOTES, StratumCounts
from ratchet.release.gate.votes import CountedVote

MAX_TENANT_VOTES = STRATUM_VOTES // 2  # in a stratum, so that a flood of one tenant's votes cannot crowd out the others
LANDING_S = 2.0  # from a vote to its file in the lake, which the gate reads


class TenantVotes(BaseModel):
    """One tenant's votes in a stratum."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tenant: str
    primary: int = 0
    primary_ups: int = 0
    canary: int = 0
    canary_ups: int = 0


class Stratum(BaseModel):
    """The votes of one stratum, by tenant."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    weight: int
    last: Place
    """Place of its last vote: the next stratum begins after it."""
    tenants: tuple[TenantVotes, ...]


@dataclass
class _Open:
    """A stratum that is being filled."""

    span: int
    votes: list[CountedVote]
    last: Place
    by_tenant: Counter[str]

    @property
    def is_full(self) -> bool:
        return len(self.votes) == STRATUM_VOTES


def new_strata(run: CanaryDesign, votes: Iterable[CountedVote], until: float) -> list[Stratum]:
    """Return the strata that `votes`, in any order, fill: all votes on answers that were served `until` then.

    The last stratum of a span that is over has fewer votes than the others.
    """
    strata = []
    for filled in _fill(run, sorted(votes, key=lambda vote: vote.place)):
        is_span_over = filled.span < len(run.spans) - 1 and run.spans[filled.span].end <= until
        if filled.is_full or is_span_over:
            strata.append(_read(run.spans[filled.span].weight, filled))
    return strata


def _fill(run: CanaryDesign, votes: Iterable[CountedVote]) -> Iterator[_Open]:
    """Yield each stratum once the next one begins, and the last one as far as it is filled."""
    filling = None
    for vote in votes:
        if filling is None or vote.span != filling.span or filling.is_full:
            if filling is not None:
                yield filling
            filling = _Open(vote.span, [], vote.place, Counter())
        filling.last = vote.place
        if vote.tenant in run.trusted_tenants or filling.by_tenant[vote.tenant] < MAX_TENANT_VOTES:
            filling.votes.append(vote)
            filling.by_tenant[vote.tenant] += 1
    if filling is not None:
        yield filling


def _read(weight: int, filled: _Open) -> Stratum:
    tallies = {tenant: Counter[str]() for tenant in sorted(filled.by_tenant)}
    for vote in filled.votes:
        tallies[vote.tenant][vote.arm] += 1
        tallies[vote.tenant][f"{vote.arm}_ups"] += vote.is_up
    tenants = tuple(TenantVotes(tenant=tenant, **tally) for tenant, tally in tallies.items())
    return Stratum(weight=weight, last=filled.last, tenants=tenants)


def counts_of(strata: Sequence[Stratum]) -> StratumCounts:
    """Return the votes of all tenants together."""
    return _counts(np.array([_sums(stratum.tenants) for stratum in strata], dtype=np.int64).reshape(-1, 4))


def counts_by_tenant(strata: Sequence[Stratum], tenants: Sequence[str]) -> StratumCounts:
    """Return each tenant's votes: one row a tenant, one column a stratum."""
    rows = {tenant: row for row, tenant in enumerate(tenants)}
    sums = np.zeros((len(tenants), len(strata), 4), dtype=np.int64)
    for column, stratum in enumerate(strata):
        for votes in stratum.tenants:
            if votes.tenant in rows:
                sums[rows[votes.tenant], column] = _sums([votes])
    return _counts(sums)


def _sums(tenants: Iterable[TenantVotes]) -> tuple[int, int, int, int]:
    votes = list(tenants)
    canary, canary_ups = sum(each.canary for each in votes), sum(each.canary_ups for each in votes)
    primary, primary_ups = sum(each.primary for each in votes), sum(each.primary_ups for each in votes)
    return primary + canary, primary_ups + canary_ups, canary, canary_ups


def _counts(sums: NDArray[np.int64]) -> StratumCounts:
    return StratumCounts(*np.moveaxis(sums, -1, 0))
