"""Weigh served answers and votes into evidence about a canary: a pure function, so that recomputing gives the same.

Votes fill strata, and strata feed two e-processes: harm (users like the candidate less) and non-inferiority (they do
not like it less by the margin). A stratum that was read stays as it was: votes that come, change or are taken back
later are in the tallies, not in the evidence, so a decision that was made stays made. A third test detects sample ratio
mismatch (SRM): requests that do not arrive at the arms as the route's weights send them, and voters who vote more often
on one arm; it holds a promotion. No decision rests on one tenant: it stands, at the same look, without the votes of
each.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from ratchet.release.gate.ballots import TESTS, Ballots, TestName
from ratchet.release.gate.design import ARMS, Arm, CanaryDesign, alpha_of_attempt
from ratchet.release.gate.duels import Duel, DuelTest, harm_duels, mix, non_inferiority_duels
from ratchet.release.gate.eprocess import ConditionalTest, Floats, Ints, harm_test, non_inferiority_test
from ratchet.release.gate.strata import Stratum, counts_by_tenant, counts_of
from ratchet.release.gate.votes import EXCLUDED

Decision = Literal["fail", "pass", "undecided"]
# A false alarm stops a good release, so as rare as in common sample-ratio checks: one in a thousand.
SRM_BOUND = math.log(1 / 0.001)
TENANTS_AT_ONCE = 64  # bounds the memory of the tests without each tenant


@dataclass(frozen=True)
class Tally:
    n: int = 0
    up: int = 0


Votes = dict[Arm, Tally]


@dataclass(frozen=True, kw_only=True)
class Point:
    """The evidence after a stratum of the test for harm; `t` in seconds since the run's start."""

    t: float
    votes: Votes
    harm: float
    non_inferiority: float
    weight: int


@dataclass(frozen=True)
class TestResult:
    """One test after its strata."""

    log_e_max: float = 0.0
    """Running maximum of the log evidence of all votes."""
    votes: int = 0
    """Votes that it has read."""
    has_decided: bool = False
    tenant: str | None = None
    """The tenant without whose votes the evidence does not reach the bound."""
    log_e: tuple[float, ...] = ()
    """Running maximum after each stratum."""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """The evidence so far. `harm`, `non_inferiority`: running maxima of log E; a test has decided at `bound`."""

    votes: Votes
    """Votes as they stand now, also those that no test has read yet or that came too late for it."""
    harm: float
    non_inferiority: float
    srm_log_e: float
    """Log evidence that requests do not arrive at the arms as the route sends them."""
    vote_srm_log_e: float
    """Log evidence that the arms' answers are not voted on alike."""
    bound: float
    decision: Decision
    why: str
    history: tuple[Point, ...] = ()
    excluded: dict[str, int] = field(default_factory=dict)
    read: dict[TestName, int] = field(default_factory=dict)
    """Votes that each test has read."""

    @property
    def has_srm_alarm(self) -> bool:
        return max(self.srm_log_e, self.vote_srm_log_e) >= SRM_BOUND


Strata = Mapping[TestName, Sequence[Stratum]]


@dataclass(frozen=True)
class TestResults:
    """Both tests after the strata that they have read."""

    tests: dict[TestName, TestResult]
    bound: float
    history: tuple[Point, ...]


def run_tests(run: CanaryDesign, strata: Strata, duels: Sequence[Duel] | None = None) -> TestResults:
    """Return both tests after `strata` and `duels`, in the order judged; None: votes are the only evidence."""
    bound = math.log(1 / alpha_of_attempt(run.alpha, run.attempt))
    horizons: dict[TestName, float] = {"harm": run.harm_horizon_s, "non_inferiority": run.promotion_horizon_s}
    experiments: dict[TestName, tuple[ConditionalTest, DuelTest]] = {
        "harm": (harm_test(), harm_duels()),
        "non_inferiority": (
            non_inferiority_test(run.margin, run.reference_approval),
            non_inferiority_duels(run.duel_margin),
        ),
    }
    results = {
        name: run_test(Experiment(*experiments[name], strata[name], duels, horizons[name]), run.trusted_tenants, bound)
        for name in TESTS
    }
    return TestResults(results, bound, _history(run, strata, results))


def weigh(run: CanaryDesign, ballots: Ballots, results: TestResults) -> Evidence:
    """Return the evidence: the tests' results, with the votes as they stand now."""
    voted = Counter[tuple[int, Arm]]()
    sums = Counter[tuple[Arm, bool]]()
    for (span, arm, is_up), num in ballots.standing.items():
        voted[span, arm] += num
        sums[arm, is_up] += num
    votes: Votes = {arm: Tally(sums[arm, True] + sums[arm, False], sums[arm, True]) for arm in ARMS}
    srm, vote_srm = _srm_log_e(run, ballots.served), _srm_log_e(run, voted)
    decision, why = _decide(votes, results, max(srm, vote_srm))
    return Evidence(
        votes=votes,
        harm=results.tests["harm"].log_e_max,
        non_inferiority=results.tests["non_inferiority"].log_e_max,
        srm_log_e=srm,
        vote_srm_log_e=vote_srm,
        bound=results.bound,
        decision=decision,
        why=why,
        history=results.history,
        excluded={reason: ballots.excluded[reason] for reason in EXCLUDED},
        read={name: result.votes for name, result in results.tests.items()},
    )


class Experiment:
    """One test's strata and duels, with or without the votes of some tenants."""

    def __init__(
        self,
        votes: ConditionalTest,
        duels: DuelTest,
        strata: Sequence[Stratum],
        judged: Sequence[Duel] | None,
        horizon_s: float,
    ) -> None:
        self.votes_test, self.duels_test, self.strata, self.judged = votes, duels, strata, judged
        self.counts = counts_of(strata)
        self.tenants = {votes.tenant for stratum in strata for votes in stratum.tenants}
        self.tenants |= {duel.tenant for duel in judged or ()}
        ends = [stratum.last[0] + horizon_s for stratum in strata]
        moments = sorted([*ends, *(duel.judged_at for duel in judged or ())])
        self.num_strata = np.searchsorted(ends, moments, side="right")
        self.num_duels = np.searchsorted([duel.judged_at for duel in judged or ()], moments, side="right")

    def log_e(self, without: Sequence[str] | None = None) -> Floats:
        """Return the log evidence at each moment: after a stratum or a duel; one row for each tenant of `without`."""
        counts = self.counts if without is None else self.counts.without(counts_by_tenant(self.strata, without))
        votes = self.votes_test.log_e(counts)
        votes = np.concatenate([np.zeros((*votes.shape[:-1], 1)), votes], axis=-1)
        if self.judged is None:
            return votes[..., self.num_strata]
        names = np.array([duel.tenant for duel in self.judged])
        kept = np.ones(len(names)) if without is None else (names != np.array(without)[:, None]).astype(float)
        duels = self.duels_test.log_e(np.array([duel.score for duel in self.judged]), kept)
        return mix(votes, duels, self.num_strata, self.num_duels)

    @property
    def after_strata(self) -> Ints:
        """The moment at which each stratum was read."""
        return np.searchsorted(self.num_strata, np.arange(1, len(self.strata) + 1), side="left")


def run_test(experiment: Experiment, trusted: frozenset[str], bound: float) -> TestResult:
    """Return the test's result: it decides once the evidence stands with all votes and without any one tenant's.

    The votes of all tenants but one are an experiment of their own, with the same error rate.
    """
    log_e = experiment.log_e()
    if not len(log_e):
        return TestResult()
    stands = log_e >= bound
    resting_on = None
    tenants = sorted(experiment.tenants - trusted)
    for first in range(0, len(tenants), TENANTS_AT_ONCE):
        if not stands.any():
            break
        some = tenants[first : first + TENANTS_AT_ONCE]
        holds = experiment.log_e(without=some) >= bound
        if not (stands & holds.all(axis=0)).any():
            last = np.flatnonzero(stands)[-1]
            resting_on = next(tenant for tenant, held in zip(some, holds[:, last], strict=True) if not held)
        stands &= holds.all(axis=0)
    maxima = np.maximum.accumulate(np.maximum(log_e, 0.0))
    return TestResult(
        log_e_max=float(maxima[-1]),
        votes=int(experiment.counts.votes.sum()),
        has_decided=bool(stands.any()),
        tenant=resting_on,
        log_e=tuple(float(maxima[moment]) for moment in experiment.after_strata),
    )


def _srm_log_e(run: CanaryDesign, answers: Mapping[tuple[int, Arm], int]) -> float:
    """Return the log evidence of sample ratio mismatch: answers did not arrive at the arms by the route's weights.

    A Beta(1, 1) mixture against the weight, multiplied over spans of constant weight. `answers`: by span and arm.
    """
    log_e = 0.0
    for i, span in enumerate(run.spans):
        if 0 < span.weight < 100:
            canary, primary = answers.get((i, "canary"), 0), answers.get((i, "primary"), 0)
            log_e += _log_beta(1 + canary, 1 + primary)
            log_e -= canary * math.log(span.weight / 100) + primary * math.log(1 - span.weight / 100)
    return log_e


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


def _decide(votes: Votes, results: TestResults, srm: float) -> tuple[Decision, str]:
    tallies = ", ".join(f"{arm} {votes[arm].up} of {votes[arm].n} up" for arm in ARMS)
    harm, non_inferiority, bound = results.tests["harm"], results.tests["non_inferiority"], results.bound
    if harm.has_decided:
        return "fail", f"users like the candidate less: {tallies}; log E(harm) {harm.log_e_max:.1f} of {bound:.1f}"
    if harm.tenant is not None:
        return "undecided", f"only the votes of tenant {harm.tenant} speak for harm; {tallies}"
    if srm >= SRM_BOUND:
        return "undecided", f"requests or votes do not arrive as the route sends them (log E {srm:.1f}); {tallies}"
    if non_inferiority.has_decided:
        return "pass", (
            f"users like the candidate no less: {tallies}; log E(no worse) "
            f"{non_inferiority.log_e_max:.1f} of {bound:.1f}"
        )
    if non_inferiority.tenant is not None:
        return "undecided", f"only the votes of tenant {non_inferiority.tenant} speak for the candidate; {tallies}"
    return "undecided", (
        f"{tallies}; {harm.votes} read for harm, {non_inferiority.votes} for promotion; "
        f"log E of {bound:.1f}: harm {harm.log_e_max:.1f}, no worse {non_inferiority.log_e_max:.1f}"
    )


def _history(run: CanaryDesign, strata: Strata, tests: Mapping[TestName, TestResult]) -> tuple[Point, ...]:
    """Return the evidence after each stratum of either test, in order of time."""
    ends = sorted({stratum.last for name in TESTS for stratum in strata[name]})
    points = []
    read: dict[TestName, int] = dict.fromkeys(TESTS, 0)
    sums: Counter[str] = Counter()
    weight = 0
    for end in ends:
        for name in TESTS:
            while read[name] < len(strata[name]) and strata[name][read[name]].last <= end:
                stratum = strata[name][read[name]]
                weight = stratum.weight
                read[name] += 1
                if name == "harm":
                    for votes in stratum.tenants:
                        sums.update(votes.model_dump(exclude={"tenant"}))
        log_e = {name: tests[name].log_e[read[name] - 1] if read[name] else 0.0 for name in TESTS}
        tallies: Votes = {arm: Tally(sums[arm], sums[f"{arm}_ups"]) for arm in ARMS}
        points.append(Point(t=round(end[0] - run.start, 3), votes=tallies, weight=weight, **log_e))
    return tuple(points)
