"""Weigh served answers and votes into evidence about a canary: a pure function, so that recomputing gives the same.

The unit is the first explicit vote of each person in a run. Its arm is the adapter digest that served the answer, not
what the voter or the route says. Votes fill blocks first in, first out, and the blocks feed two e-processes: harm (the
candidate is worse) and non-inferiority (it is not worse by the non-inferiority margin). A third test detects sample
ratio mismatch (SRM): requests that do not arrive at the arms as the route's weights send them make votes incomparable,
and so do voters who vote more often on one arm, as in brigading. No decision rests on one tenant: it must hold without
the votes of any single tenant, unless one tenant casts most of the votes.
"""

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from ratchet.adapter_ref import AdapterDigest
from ratchet.events import Feedback, Interaction
from ratchet.release.gate.blocks import ARMS, Arm, CanaryDesign, CountedVote, Point, TestResults, Votes, run_tests

Decision = Literal["fail", "pass", "undecided"]
EXCLUDED = ("interaction_unknown", "served_outside_run", "other_adapter", "repeat_vote")
LOWEST_UP, HIGHEST_DOWN = 4, 2  # ratings of 4 and 5 are up, 1 and 2 down; 3 is no vote
# A false alarm stops a good release, so as rare as in common sample-ratio checks: one in a thousand.
SRM_BOUND = math.log(1 / 0.001)
MIN_TENANT_SHARE = 0.01  # of the votes; a smaller tenant decides nothing, and checking each would cost a test apiece


@dataclass(frozen=True, kw_only=True)
class ServedAnswer:
    """The fields of one served answer that the evidence depends on."""

    interaction_id: str
    digest: AdapterDigest
    served_at: float
    latency_s: float = 0.0
    tenant: str = "default"

    @classmethod
    def of(cls, event: Interaction) -> "ServedAnswer":
        return cls(
            interaction_id=event.interaction_id,
            digest=AdapterDigest(event.adapter_digest),
            served_at=event.served_at,
            latency_s=event.latency_ms / 1000,
            tenant=event.tenant,
        )


@dataclass(frozen=True, kw_only=True)
class Vote:
    """One explicit human judgement, up or down."""

    feedback_id: str
    interaction_id: str
    subject_id: str
    is_up: bool
    created_at: float

    @classmethod
    def of(cls, event: Feedback) -> "Vote | None":
        """Return the vote in this feedback; None if it is none: another kind, a rating of 3, or not from a person."""
        is_up = _is_up(event)
        if is_up is None:
            return None
        return cls(
            feedback_id=event.feedback_id,
            interaction_id=event.interaction_id,
            subject_id=event.subject_id,
            is_up=is_up,
            created_at=event.created_at,
        )


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """The evidence so far. `harm`, `non_inferiority`: running maxima of log E; a test has decided at `bound`."""

    votes: Votes
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

    @property
    def has_srm_alarm(self) -> bool:
        return max(self.srm_log_e, self.vote_srm_log_e) >= SRM_BOUND


def weigh(run: CanaryDesign, served: Iterable[ServedAnswer], votes: Iterable[Vote]) -> Evidence:
    """Return the evidence on `run` in these events; their order does not matter."""
    answers = {answer.interaction_id: answer for answer in sorted(served, key=lambda a: (-a.served_at, a.digest))}
    counted, excluded = _first_votes(run, answers, votes)
    cast = [CountedVote(vote.created_at, arm, vote.is_up, answers[vote.interaction_id].tenant) for arm, vote in counted]
    results = run_tests(run, cast)
    srm = _srm_log_e(run, answers.values())
    vote_srm = _srm_log_e(run, (answers[vote.interaction_id] for _, vote in counted))
    decision, why = _decide(run, cast, results, max(srm, vote_srm))
    return Evidence(
        votes=results.votes,
        harm=results.harm.log_e_max,
        non_inferiority=results.non_inferiority.log_e_max,
        srm_log_e=srm,
        vote_srm_log_e=vote_srm,
        bound=run.bound,
        decision=decision,
        why=why,
        history=results.history,
        excluded=excluded,
    )


def _first_votes(
    run: CanaryDesign, answers: dict[str, ServedAnswer], votes: Iterable[Vote]
) -> tuple[list[tuple[Arm, Vote]], dict[str, int]]:
    counted: dict[str, tuple[Arm, Vote]] = {}
    excluded = Counter(dict.fromkeys(EXCLUDED, 0))
    unique = {vote.feedback_id: vote for vote in votes}.values()
    for vote in sorted(unique, key=lambda vote: (vote.created_at, vote.feedback_id)):
        answer = answers.get(vote.interaction_id)
        if answer is None:
            excluded["interaction_unknown"] += 1
        elif answer.served_at < run.start:
            excluded["served_outside_run"] += 1
        elif (arm := run.arm_of(answer.digest)) is None:
            excluded["other_adapter"] += 1
        elif vote.subject_id in counted:
            excluded["repeat_vote"] += 1
        else:
            counted[vote.subject_id] = (arm, vote)
    return list(counted.values()), dict(excluded)


def _srm_log_e(run: CanaryDesign, answers: Iterable[ServedAnswer]) -> float:
    """Return the log evidence of sample ratio mismatch: requests did not arrive at the arms by the route's weights.

    A Beta(1, 1) mixture against the weight, multiplied over spans of constant weight. Only answers that began and
    ended within a span count, so that a request sent under one weight is not counted against the next.
    """
    counts = [Counter[Arm]() for _ in run.spans]
    for answer in answers:
        arm = run.arm_of(answer.digest)
        i = bisect_right(run.spans, answer.served_at - answer.latency_s, key=lambda span: span.start) - 1
        if arm is not None and i >= 0 and answer.served_at + answer.latency_s <= run.spans[i].end:
            counts[i][arm] += 1
    return sum(
        _log_beta(1 + count["canary"], 1 + count["primary"])
        - count["canary"] * math.log(span.weight / 100)
        - count["primary"] * math.log(1 - span.weight / 100)
        for span, count in zip(run.spans, counts, strict=True)
        if 0 < span.weight < 100
    )


def _decide(run: CanaryDesign, cast: Sequence[CountedVote], results: TestResults, srm: float) -> tuple[Decision, str]:
    tallies = ", ".join(f"{arm} {results.votes[arm].up} of {results.votes[arm].n} up" for arm in ARMS)
    harm, non_inferiority, bound = results.harm.log_e_max, results.non_inferiority.log_e_max, run.bound
    if harm >= bound:
        if tenant := _rests_on(run, cast, lambda without: without.harm.log_e_max >= bound):
            return "undecided", f"only the votes of tenant {tenant} speak for harm; {tallies}"
        return "fail", f"users like the candidate less: {tallies}; log E(harm) {harm:.1f} of {bound:.1f}"
    if srm >= SRM_BOUND:
        return "undecided", f"requests or votes do not arrive as the route sends them (log E {srm:.1f}); {tallies}"
    if non_inferiority >= bound:
        if tenant := _rests_on(run, cast, lambda without: without.non_inferiority.log_e_max >= bound):
            return "undecided", f"only the votes of tenant {tenant} speak for the candidate; {tallies}"
        return (
            "pass",
            f"users like the candidate no less: {tallies}; log E(no worse) {non_inferiority:.1f} of {bound:.1f}",
        )
    return "undecided", f"{tallies}; log E of {bound:.1f}: harm {harm:.1f}, no worse {non_inferiority:.1f}"


def _rests_on(run: CanaryDesign, cast: Sequence[CountedVote], holds: Callable[[TestResults], bool]) -> str | None:
    """Return the tenant without whose votes the decision does not hold; None if it holds without any single tenant.

    The votes of all tenants but one are an experiment of their own, with the same error rate.
    """
    votes = Counter(vote.tenant for vote in cast)
    for tenant, n in votes.most_common():
        is_checked = MIN_TENANT_SHARE <= n / len(cast) < run.max_tenant_share
        if is_checked and not holds(run_tests(run, (vote for vote in cast if vote.tenant != tenant))):
            return tenant
    return None


def _is_up(event: Feedback) -> bool | None:
    if event.source != "human" or not isinstance(event.value, float):
        return None
    if event.kind == "thumb" and event.value in (1, -1):
        return event.value == 1
    if event.kind == "rating" and (event.value >= LOWEST_UP or event.value <= HIGHEST_DOWN):
        return event.value >= LOWEST_UP
    return None


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
