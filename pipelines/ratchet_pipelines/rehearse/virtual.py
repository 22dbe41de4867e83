"""One release on a virtual clock: the chart's Canary, Flagger's scheduler, hooks, evidence and reconciler as they are.

Git, MLflow and the lake are in memory, and the public is drawn at random, so that a day passes in a second and a
release can be rehearsed many times.
"""

import random
from dataclasses import dataclass, field, replace

from ratchet.adapter_ref import AdapterRef
from ratchet.config import Config
from ratchet.rehearsal.canary_spec import Canary, Hook, Metric
from ratchet.rehearsal.flagger import Phase
from ratchet.release.gate.blocks import CanaryDesign, WeightSpan
from ratchet.release.gate.evidence import Evidence, ServedAnswer, Vote, weigh
from ratchet.release.gate.traffic_log import TrafficLog
from ratchet.release.gate.webhooks import JUDGED_PHASES, GateView, Limits, answer
from ratchet.release.ledger import (
    CLOSING,
    Ledger,
    LedgerEntry,
    LedgerRecord,
    is_aborted,
    open_request,
    quarantined,
    request,
)
from ratchet.release.reconciler.actions import run_id
from ratchet.release.reconciler.reconcile import reconcile
from ratchet.release.reconciler.targets import Targets
from ratchet_pipelines.rehearse.faults import Fault, Public
from ratchet_pipelines.rehearse.killed_writes import Killed, killed_before_write
from ratchet_pipelines.rehearse.memory import MemoryGit, MemoryRegistry, MemoryStore
from ratchet_pipelines.rehearse.virtual_cluster import VirtualCluster

CHAMPION = AdapterRef(name="adapter", version="1", uri="lake/adapters/1", digest="1" * 64)
CANDIDATE = AdapterRef(name="adapter", version="2", uri="lake/adapters/2", digest="2" * 64)
LATENCY_S = 1.0
MAX_MINUTES = 48 * 60.0  # a release that is still open then counts as open


@dataclass(frozen=True, kw_only=True)
class VirtualClockResult:
    """How one rehearsed release ended."""

    outcome: str
    """The ledger's closing event; `page` where a person was called; `open` where nothing ended it."""
    why: str
    minutes: float
    canary_votes: int
    agrees: bool
    """Traffic, alias, Git and ledger name the same adapter."""


@dataclass
class Rehearsal(VirtualCluster):
    """A cluster with a gate, a reconciler and a public."""

    config: Config = field(default_factory=Config)
    fault: Fault = field(default_factory=lambda: Fault(says=""))
    public: Public = field(default_factory=Public)
    seed: int = 0

    def __post_init__(self) -> None:
        self.now = 0.0
        self.rng = random.Random(self.seed)
        self.store = MemoryStore()
        self.ledger = Ledger(self.store)
        self.registry = MemoryRegistry({ref.version: ref.digest for ref in (CHAMPION, CANDIDATE)})
        self.registry.aliases["champion"] = CHAMPION.version
        self.view: GateView | None = None
        self.evidence: Evidence | None = None
        self.spans: list[WeightSpan] = []
        self.num_steps = 0
        self.served: list[ServedAnswer] = []
        self.votes: list[Vote] = []
        self.failures: list[bool] = []
        self.num_kills = 0
        super().__post_init__()

    def play(self) -> VirtualClockResult:
        """From the request to the end, tick by tick."""
        opened = self._ask()
        action = ""
        while self.now < 60 * MAX_MINUTES and open_request(self.ledger.records()) and action != "page":
            self._pass_time()
            self.sync()
            self._look_as_gate()
            self.tick()
            action = self._reconcile()
        return self._ended(opened, action)

    def call_hook(self, hook: Hook, phase: Phase, checksum: str) -> bool:
        if self.fault.is_gate_dead or self.view is None:
            return False
        if hook.type in ("post-rollout", "event", "rollout"):
            return True
        gate = self.config.gate
        return answer(hook.type, self.view, Limits(min_votes=gate.min_votes, max_minutes=gate.max_minutes)).is_yes

    def measure(self, metric: Metric) -> float | None:
        """What Prometheus would say of the candidate since the last tick; 0 without traffic, as the templates do."""
        number, failed = len(self.failures), sum(self.failures)
        latency_s = LATENCY_S + self.fault.delay_s if failed < number else 0.0
        return {"errors": 100 * failed / max(1, number), "latency": latency_s}.get(metric.name)

    def set_route(self, canary_weight: int) -> None:
        self.num_steps += canary_weight > self.weight
        super().set_route(canary_weight)

    def _ask(self) -> LedgerRecord:
        entry = LedgerEntry(
            event="requested",
            at=self.now,
            who="rehearsal",
            adapter=CANDIDATE,
            baseline=CHAMPION,
            verdict="pass",
            applied_spec=self.status.last_applied_spec,
        )
        opened = request(self.ledger, entry)
        assert opened is not None  # the ledger was empty
        self.git.write_adapter(lambda named: CANDIDATE, "Release", run_id(self.canary, opened))
        return opened

    def _pass_time(self) -> None:
        """Requests and votes until the next tick. The route stands still meanwhile."""
        start, self.now = self.now, self.now + self.spec.interval_s
        if self.status.phase in JUDGED_PHASES:
            TrafficLog(self.store, 1).observe(self.now, self.weight)
            self.spans.append(WeightSpan(start=start, end=self.now, weight=self.weight))
        self.failures.clear()
        number = round(self.public.requests_a_minute * self.spec.interval_s / 60)
        for at in sorted(self.rng.uniform(start, self.now) for _ in range(number)):
            self._request(at)

    def _request(self, at: float) -> None:
        fault, rng = self.fault, self.rng
        is_canary = rng.random() * 100 < self.weight
        is_failed = (is_canary and rng.random() < fault.errors) or not fault.do_events_land
        if is_canary:
            self.failures.append(is_failed)
        if is_failed:
            return
        name = f"i{len(self.served)}"
        is_hostile = rng.random() < fault.brigade
        self.served.append(
            ServedAnswer(
                interaction_id=name,
                digest=(self.target if is_canary else self.primary).digest,
                served_at=at,
                latency_s=LATENCY_S + fault.delay_s * is_canary,
                tenant="hostile" if is_hostile else f"tenant-{rng.randrange(10)}",
            )
        )
        share = self.public.vote_share * fault.vote_factor * (1 - fault.given_up * is_canary)
        if rng.random() < share:
            likes = rng.random() < self.public.approval + fault.gain * is_canary
            is_up = not is_canary if is_hostile else likes
            self.votes.append(
                Vote(feedback_id=name, interaction_id=name, subject_id=name, is_up=is_up, created_at=at + 1)
            )

    def _look_as_gate(self) -> None:
        records = self.ledger.records()
        opened = open_request(records)
        if self.spans and opened:
            gate = self.config.gate
            run = CanaryDesign(
                candidate=CANDIDATE.digest,
                baseline=CHAMPION.digest,
                attempt=opened.attempt,
                alpha=gate.alpha,
                margin=gate.non_inferiority_margin,
                max_tenant_share=gate.max_tenant_share,
                spans=tuple(_merged(self.spans)),
            )
            self.evidence = weigh(run, self.served, self.votes)
        self.view = GateView(
            phase=self.status.phase,
            target=self.target.digest,
            primary=self.primary.digest,
            weight=self.weight,
            request=opened,
            quarantined=frozenset(quarantined(records)),
            is_aborted=opened is not None and is_aborted(records, opened),
            evidence=self.evidence,
            num_steps=self.num_steps,
            minutes=(self.now - self.spans[0].start) / 60 if self.spans else 0.0,
        )

    def _reconcile(self) -> str:
        targets = Targets(
            store=self.store,
            ledger=self.ledger,
            cluster=self,
            values=self.git,
            registry=self.registry,
            model="adapter",
            gate_state=dict,
            holder="rehearsal",
            lease_s=4 * self.spec.interval_s,
            clock=lambda: self.now,
        )
        if self.fault.kills_reconciler:
            targets = killed_before_write(targets, self.num_kills)
        try:
            return reconcile(targets, self.now).action.kind
        except Killed:
            self.num_kills += 1
            return "killed"

    def _ended(self, opened: LedgerRecord, action: str) -> VirtualClockResult:
        last = self.ledger.records()[-1]
        outcome = last.event if last.event in CLOSING else "page" if action == "page" else "open"
        champion = CHAMPION if self.registry.aliases["champion"] == CHAMPION.version else CANDIDATE
        expected = CANDIDATE if outcome == "promoted" else CHAMPION
        return VirtualClockResult(
            outcome=outcome,
            why=self._why(last),
            minutes=(self.now - opened.at) / 60,
            canary_votes=self.evidence.votes["canary"].n if self.evidence else 0,
            agrees=self.weight == 0 and self.primary == self.git.adapter == champion == expected,
        )

    def _why(self, last: LedgerRecord) -> str:
        if self.view is None:
            return last.why
        rollback = answer("rollback", self.view, Limits(min_votes=0, max_minutes=self.config.gate.max_minutes))
        if last.event == "rolled_back" and rollback.is_yes:
            return rollback.why
        return self.evidence.why if self.evidence and last.event == "promoted" else last.why


def rehearse_once(canary: Canary, config: Config, fault: Fault, public: Public, seed: int) -> VirtualClockResult:
    """One release of a candidate with this fault, from request to end."""
    return Rehearsal(canary, MemoryGit(CHAMPION), config=config, fault=fault, public=public, seed=seed).play()


def _merged(spans: list[WeightSpan]) -> list[WeightSpan]:
    """Spans of constant weight, as long as they last."""
    merged: list[WeightSpan] = []
    for span in spans:
        if merged and merged[-1].weight == span.weight:
            merged[-1] = replace(merged[-1], end=span.end)
        else:
            merged.append(span)
    return merged
