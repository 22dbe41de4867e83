"""The gate's state: one look at cluster, ledger and events computes every answer, and /state.

The gate's own failures make answers stale, and a stale answer is a refusal: it promotes nothing and rolls nothing back.
Time is an argument, so that a rehearsal drives the same object on a virtual clock.
"""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from ratchet.adapter_ref import AdapterDigest
from ratchet.config import Config
from ratchet.release.gate.ballots import BEFORE_ALL, TESTS, Ballots, TestName
from ratchet.release.gate.design import CanaryDesign
from ratchet.release.gate.duel_log import DuelLog, is_judged
from ratchet.release.gate.event_tail import EventTail
from ratchet.release.gate.evidence import Evidence, TestResults, run_tests, weigh
from ratchet.release.gate.strata_log import StrataLog
from ratchet.release.gate.traffic_log import TrafficLog
from ratchet.release.gate.webhooks import ALWAYS, HOOKS, JUDGED_PHASES, GateView, HookAnswer, Limits, answer
from ratchet.release.ledger import Ledger, LedgerRecord, is_aborted, open_request, quarantined
from ratchet.release.reconciler.kubernetes import Cluster, ClusterSnapshot
from ratchet.store import Store

STALE_S = 10.0
SETTLE_S = 0.5  # Flagger moves the route within the tick in which it got its yes
NEXT_TICK = 0.75  # of Flagger's interval: what is asked after that is asked by its next tick
MAX_HISTORY = 200  # points in /state; more are thinned out evenly


class GateState:
    """The gate's knowledge: `refresh` looks once; `answers` and `state` hold the result until the next look.

    All that belongs to one canary (`request`, its events, its route, `evidence`) is replaced when the open request
    changes, and is gathered again from the lake after a restart.
    """

    def __init__(self, config: Config, store: Store, cluster: Cluster) -> None:
        self.config, self.store, self.cluster = config, store, cluster
        self.limits = Limits(min_votes=config.gate.min_votes, max_minutes=config.gate.max_minutes)
        self.ledger = Ledger(store)
        self.request: LedgerRecord | None = None
        """The release under way."""
        self.evidence: Evidence | None = None
        """None until the canary of `request` has been seen to run."""
        self._events: EventTail
        self._route: TrafficLog
        self._ballots: Ballots
        self._strata: dict[TestName, StrataLog]
        self._duels: DuelLog | None
        """None if votes are the only evidence."""
        self._results: TestResults | None
        self.answers: dict[str, HookAnswer] = {}
        self.state: dict[str, Any] = {"decision": "undecided", "why": "the gate has not looked yet", "history": []}
        self.records: list[LedgerRecord] = []
        self.refreshed_at = float("-inf")
        self._interval_s = 0.0
        self._granted_at: list[float] = []
        """Times at which a step was granted that the last look may not have seen."""

    def refresh(self, now: float) -> None:
        """Look once, at `now` (Unix seconds). Raises, and keeps what it knew, if a place cannot be read."""
        snapshot = self.cluster.look()
        records = self.ledger.records()  # after the cluster: a request is on record before any pod names its adapter
        self._follow(open_request(records))
        if self.request is not None:
            self._gather(self.request, snapshot, now)
        view = self._view(snapshot, records, now)
        self.answers = {hook: answer(hook, view, self.limits) for hook in HOOKS}
        self.state, self.records = _state(view, snapshot, self.answers["rollback"]), records
        self.refreshed_at, self._interval_s = now, snapshot.interval_s

    def answer(self, hook: str, now: float, asker: tuple[str, str] | None = None) -> HookAnswer:
        """Answer a hook from the last look; refuse if that look is too old, or if another Canary asks.

        `asker` is the name and the namespace of the Canary.
        """
        release = self.config.release_adapter
        if asker is not None and asker != (release.canary, release.namespace):
            return HookAnswer(False, f"this gate judges {release.canary} in {release.namespace}, not {'/'.join(asker)}")
        if hook in ALWAYS:
            return HookAnswer(True, "noted")
        age_s = now - self.refreshed_at
        if age_s > max(STALE_S, 5 * self.config.gate.refresh_s):
            return HookAnswer(False, f"the gate last saw cluster and lake {age_s:.0f} s ago; see its log")
        if hook == "confirm-traffic-increase":
            return self._grant_step(now)
        return self.answers.get(hook, HookAnswer(False, f"no such hook; there are {', '.join(HOOKS)}"))

    def _grant_step(self, now: float) -> HookAnswer:
        """Answer confirm-traffic-increase: no two ticks of Flagger are granted a step on one look.

        Until the gate has seen the route after a step, it knows only the votes and the weight from before it. Between
        two questions of Flagger lies an interval: of two that are closer, one is somebody else's, and takes nothing.
        """
        granted = self.answers["confirm-traffic-increase"]
        if not granted.is_yes:
            return granted
        self._granted_at = [at for at in self._granted_at if at + SETTLE_S > self.refreshed_at]
        if self._granted_at and now - self._granted_at[0] >= NEXT_TICK * self._interval_s:
            return HookAnswer(False, "the gate has not looked since the last step")
        if not self._granted_at or now - self._granted_at[-1] >= SETTLE_S:
            self._granted_at.append(now)
        return granted

    def _follow(self, request: LedgerRecord | None) -> None:
        if request == self.request:
            return
        self.request, self.evidence = request, None
        if request is not None:
            self._events = EventTail(self.store, since=request.at)
            self._route = TrafficLog(self.store, request.seq)
            self._ballots = Ballots()
            self._strata = {test: StrataLog(self.store, request.seq, test) for test in TESTS}
            self._duels = DuelLog(self.store, request.seq) if is_judged(self.config, request) else None
            self._results = None

    def _gather(self, request: LedgerRecord, snapshot: ClusterSnapshot, now: float) -> None:
        """Take in the route's weight and the new events of this request's canary, and weigh all of them."""
        baseline = request.baseline.digest if request.baseline else AdapterDigest("")
        arms = (snapshot.target.digest, snapshot.primary.digest)
        is_run = snapshot.phase in JUDGED_PHASES and arms == (request.adapter.digest, baseline)
        if is_run and (snapshot.is_target_up or snapshot.weight == 0):  # a share of the traffic that pods can answer
            self._route.observe(now, snapshot.weight)
        spans = self._route.spans()
        if not spans:
            return
        self._events.read(now)
        gate = self.config.gate
        design = CanaryDesign(
            candidate=request.adapter.digest,
            baseline=baseline,
            attempt=request.attempt,
            alpha=gate.alpha,
            margin=gate.non_inferiority_margin,
            reference_approval=gate.reference_approval,
            duel_margin=gate.duels.margin,
            trusted_tenants=frozenset(gate.trusted_tenants),
            harm_horizon_s=gate.harm_horizon_s,
            promotion_horizon_s=gate.promotion_horizon_s,
            spans=spans,
        )
        self._ballots.take(design, *self._events.take())
        for test, log in self._strata.items():
            new = self._ballots.read(test, design, log.strata[-1].last if log.strata else BEFORE_ALL, now)
            if new:
                log.append(new)
                self._results = None
        if self._duels is not None and self._duels.read():
            self._results = None
        if self._results is None:  # both tests start anew from the logs, and cost more the longer they are
            strata = {test: log.strata for test, log in self._strata.items()}
            self._results = run_tests(design, strata, self._duels.duels if self._duels else None)
        self.evidence = weigh(design, self._ballots, self._results)

    def _view(self, snapshot: ClusterSnapshot, records: Sequence[LedgerRecord], now: float) -> GateView:
        request = self.request
        spans = self._route.spans() if request else ()
        return GateView(
            phase=snapshot.phase,
            target=snapshot.target.digest,
            primary=snapshot.primary.digest,
            weight=snapshot.weight,
            is_target_up=snapshot.is_target_up,
            request=request,
            quarantined=frozenset(quarantined(records)),
            is_aborted=request is not None and is_aborted(records, request),
            evidence=self.evidence,
            num_steps=self._route.num_steps if request else 0,
            minutes=(now - spans[0].start) / 60 if spans else 0.0,
        )


def _state(view: GateView, snapshot: ClusterSnapshot, rollback: HookAnswer) -> dict[str, Any]:
    """Return what people and the release step read at /state; times in seconds since the run began."""
    request, evidence = view.request, view.evidence
    return {
        "candidate": request.adapter.digest if request else None,
        "baseline": request.baseline.digest if request and request.baseline else None,
        "attempt": request.attempt if request else None,
        "phase": snapshot.phase,
        "weight": snapshot.weight,
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
        "read": evidence.read,
        "bound": evidence.bound,
        "decision": evidence.decision,
        "excluded": evidence.excluded,
        "history": [
            {
                "t": point.t,
                "votes": {arm: asdict(tally) for arm, tally in point.votes.items()},
                "log_e": {"harm": point.harm, "non_inferiority": point.non_inferiority},
                "weight": point.weight,
            }
            for point in thinned
        ],
    }
