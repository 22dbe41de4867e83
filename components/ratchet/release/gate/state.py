"""The gate's eyes: one look at cluster, ledger and events works out every answer and what people read.

Whatever goes wrong here makes answers old, and an old answer is a refusal: nothing is promoted on it, and nothing
rolled back.
"""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from ratchet.config import Config
from ratchet.release.gate.blocks import Point
from ratchet.release.gate.canary_run import CanaryRun
from ratchet.release.gate.evidence import Evidence
from ratchet.release.gate.webhooks import ALWAYS, HOOKS, GateView, HookAnswer, Limits, answer
from ratchet.release.ledger import Ledger, LedgerRecord, is_aborted, open_request, quarantined
from ratchet.release.reconciler.kubernetes import ClusterReader, ClusterSnapshot
from ratchet.store import Store

STALE_S = 10.0
SETTLE_S = 0.5  # Flagger moves the route within the tick in which it got its yes
MAX_HISTORY = 200  # points in /state; more are thinned out evenly


class GateState:
    """`refresh` looks once; `answers` and `state` are what the gate then knows."""

    def __init__(self, config: Config, store: Store, cluster: ClusterReader) -> None:
        self.config, self.store, self.cluster = config, store, cluster
        self.limits = Limits(min_votes=config.gate.min_votes, max_minutes=config.gate.max_minutes)
        self.ledger = Ledger(store)
        self.trial: CanaryRun | None = None
        self.answers: dict[str, HookAnswer] = {}
        self.state: dict[str, Any] = {"decision": "undecided", "why": "the gate has not looked yet", "history": []}
        self.records: list[LedgerRecord] = []
        self.refreshed_at = float("-inf")
        self._stepped_at = float("-inf")

    def refresh(self, now: float) -> None:
        """Look once. Raises, and keeps what it knew, where it cannot see."""
        seen = self.cluster.look()
        records = self.ledger.records()  # after the cluster: a request is on record before any pod names its adapter
        self._follow(open_request(records))
        if self.trial is not None:
            self.trial.look(seen, now)
        view = self._view(seen, records, now)
        self.answers = {hook: answer(hook, view, self.limits) for hook in HOOKS}
        self.state, self.records = _state(view, seen, self.answers["rollback"]), records
        self.refreshed_at = now

    def answer(self, hook: str, now: float) -> HookAnswer:
        """What the last look says, unless that is too long ago."""
        if hook in ALWAYS:
            return HookAnswer(True, "noted")
        age_s = now - self.refreshed_at
        if age_s > max(STALE_S, 5 * self.config.gate.refresh_s):
            return HookAnswer(False, f"the gate last saw cluster and lake {age_s:.0f} s ago; see its log")
        given = self.answers.get(hook, HookAnswer(False, f"no such hook; there are {', '.join(HOOKS)}"))
        return self._one_yes_a_look(given, now) if hook == "confirm-traffic-increase" else given

    def _one_yes_a_look(self, given: HookAnswer, now: float) -> HookAnswer:
        """A step is granted once: until we have seen the route after it, the votes and weight we know are the old."""
        if given.is_yes and self.refreshed_at < self._stepped_at + SETTLE_S:
            return HookAnswer(False, "the gate has not looked since the last step")
        if given.is_yes:
            self._stepped_at = now
        return given

    def _follow(self, request: LedgerRecord | None) -> None:
        if request is None:
            self.trial = None
        elif self.trial is None or self.trial.request != request:
            self.trial = CanaryRun(self.config.gate, self.store, request)

    def _view(self, seen: ClusterSnapshot, records: Sequence[LedgerRecord], now: float) -> GateView:
        trial = self.trial
        return GateView(
            phase=seen.phase,
            target=seen.target.digest,
            primary=seen.primary.digest,
            weight=seen.weight,
            request=trial.request if trial else None,
            quarantined=frozenset(quarantined(records)),
            is_aborted=trial is not None and is_aborted(records, trial.request),
            evidence=trial.evidence if trial else None,
            num_steps=trial.num_steps if trial else 0,
            minutes=trial.age_s(now) / 60 if trial else 0.0,
        )


def _state(view: GateView, seen: ClusterSnapshot, rollback: HookAnswer) -> dict[str, Any]:
    """What people and the release step read at /state; times in seconds since the run began."""
    request, evidence = view.request, view.evidence
    return {
        "candidate": request.adapter.digest if request else None,
        "baseline": request.baseline.digest if request and request.baseline else None,
        "attempt": request.attempt if request else None,
        "phase": seen.phase,
        "weight": seen.weight,
        "minutes": round(view.minutes, 3),
        "rollback": rollback.why if rollback.is_yes else None,
        **(_evidence_state(evidence) if evidence else {"votes": {}, "decision": "undecided", "history": []}),
        "why": evidence.why if evidence else rollback.why,
    }


def _evidence_state(evidence: Evidence) -> dict[str, Any]:
    thinned = evidence.history[:: 1 + len(evidence.history) // MAX_HISTORY]
    return {
        "votes": {arm: asdict(tally) for arm, tally in evidence.votes.items()},
        "log_e": {
            "harm": evidence.harm,
            "non_inferiority": evidence.non_inferiority,
            "srm": evidence.srm_log_e,
            "vote_srm": evidence.vote_srm_log_e,
        },
        "bound": evidence.bound,
        "decision": evidence.decision,
        "excluded": evidence.excluded,
        "history": [_point(point) for point in thinned],
    }


def _point(point: Point) -> dict[str, Any]:
    votes = {arm: asdict(tally) for arm, tally in point.votes.items()}
    log_e = {"harm": point.harm, "non_inferiority": point.non_inferiority}
    return {"t": point.t, "votes": votes, "log_e": log_e, "weight": point.weight}
