"""One release on a virtual clock, with the real scheduler model, gate, evidence, decisions and effects.

Git, MLflow and the lake are in memory, and the public is drawn at random, so that a day passes in a second and a
release can be rehearsed many times.
"""

import random
from dataclasses import dataclass, field

from ratchet.adapter_ref import AdapterRef
from ratchet.config import Config
from ratchet.events import Feedback, Interaction
from ratchet.ingest.landing import land
from ratchet.rehearsal.canary_spec import Hook, Metric
from ratchet.rehearsal.canary_status import Phase
from ratchet.release.gate.state import GateState
from ratchet.release.ledger import CLOSING, Ledger, LedgerEntry, LedgerRecord, open_request, request
from ratchet.release.reconciler.actions import first_values, run_id
from ratchet.release.reconciler.reconcile import reconcile
from ratchet.release.reconciler.targets import Targets
from ratchet_pipelines.rehearse.faults import Fault, Public
from ratchet_pipelines.rehearse.killed_writes import Killed, killed_before_write
from ratchet_pipelines.rehearse.memory import MemoryGit, MemoryRegistry, MemoryStore
from ratchet_pipelines.rehearse.virtual_cluster import Manifests, VirtualCluster

CHAMPION = AdapterRef(name="adapter", version="1", uri="lake/adapters/1", digest="1" * 64)
CANDIDATE = AdapterRef(name="adapter", version="2", uri="lake/adapters/2", digest="2" * 64)
LATENCY_S = 1.0
MAX_MINUTES = 48 * 60.0  # a release that is still open then counts as open


@dataclass(frozen=True, kw_only=True)
class VirtualClockResult:
    """How one rehearsed release ended."""

    outcome: str
    """The ledger's closing event; `page` if a person was called; `open` if nothing ended it."""
    why: str
    minutes: float
    canary_votes: int
    agrees: bool
    """Traffic, alias, Git and ledger name the same adapter."""


@dataclass
class Rehearsal(VirtualCluster):
    """A cluster with the gate's own `GateState`, a reconciler and a public."""

    config: Config = field(default_factory=Config)
    fault: Fault = field(default_factory=lambda: Fault(says=""))
    public: Public = field(default_factory=Public)
    seed: int = 0

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self.store = MemoryStore()
        self.ledger = Ledger(self.store)
        self.registry = MemoryRegistry({ref.version: ref.digest for ref in (CHAMPION, CANDIDATE)})
        self.registry.aliases["champion"] = CHAMPION.version
        self.gate = GateState(self.config, self.store, self)
        self.num_served = 0
        self.failures: list[bool] = []
        """Of the canary's requests since the last tick: which failed."""
        self.num_kills = 0
        self.interval_s = self.manifests.spec.interval_s
        self.weight, self.arms = 0, ("", "")
        """Percent of traffic on the canary, and the digests of both arms, canary first, between the last two ticks."""
        super().__post_init__()

    def play(self) -> VirtualClockResult:
        """Return how the release ended, after playing it tick by tick from the request on."""
        opened = self._open_release()
        action = ""
        while self.now < 60 * MAX_MINUTES and open_request(self.ledger.records()) and action != "page":
            self._pass_time()
            self.sync()
            self.look_as_gate()
            self.tick()
            action = self._reconcile()
        return self._result(opened, action)

    def look_as_gate(self) -> None:
        if not self.is_gate_away:
            self.gate.refresh(self.now)

    @property
    def is_gate_away(self) -> bool:
        is_lost = 0 < self.fault.gate_minutes * 60 < self.now
        return self.fault.is_gate_dead or is_lost

    def call_hook(self, hook: Hook, phase: Phase, checksum: str) -> bool:
        asker = (self.canary, self.cluster.namespace)
        return not self.is_gate_away and self.gate.answer(hook.type, self.now, asker).is_yes

    def measure(self, metric: Metric) -> float | None:
        """Return the candidate's metric since the last tick; 0 without traffic, as the chart's templates do."""
        number, failed = len(self.failures), sum(self.failures)
        latency_s = LATENCY_S + self.fault.delay_s if failed < number else 0.0
        return {"errors": 100 * failed / max(1, number), "latency": latency_s}.get(metric.name)

    def _open_release(self) -> LedgerRecord:
        entry = LedgerEntry(
            event="requested",
            at=self.now,
            who="rehearsal",
            adapter=CANDIDATE,
            baseline=CHAMPION,
            verdict="pass",
            applied_spec=self.look().last_applied_spec,
            condition_at=self.look().condition_at,
        )
        opened = request(self.ledger, entry)
        assert opened is not None  # the ledger was empty
        self.git.name_once(first_values(opened), "Release", run_id(self.canary, opened))
        return opened

    def _pass_time(self) -> None:
        """Let the gate see the last tick's moves; then requests and votes until the next tick, at a constant route."""
        start, end = self.now, self.now + self.interval_s
        seen = self.look()
        self.weight = seen.weight
        self.arms = (seen.target.digest, seen.primary.digest)
        if self.gate.state.get("phase") != seen.phase or self.gate.state.get("weight") != seen.weight:
            # The gate looks every refresh_s. Between a look just after a tick that moved something and one just before
            # the next tick, further looks would change no answer.
            self.now = min(end, start + self.config.gate.refresh_s)
            self.look_as_gate()
        self.now = end
        self.failures.clear()
        number = round(self.public.requests_a_minute * self.interval_s / 60)
        events: list[Interaction | Feedback] = []
        for at in sorted(self.rng.uniform(start, end) for _ in range(number)):
            events += self._request(at)
        land(self.store, events)

    def _request(self, at: float) -> list[Interaction | Feedback]:
        """Draw one request, and the events that it leaves in the lake: the answer, and perhaps a vote."""
        fault, rng = self.fault, self.rng
        is_canary = rng.random() * 100 < self.weight
        is_failed = (is_canary and rng.random() < fault.errors) or not fault.do_events_land
        if is_canary:
            self.failures.append(is_failed)
        if is_failed:
            return []
        name = f"i{self.num_served}"
        self.num_served += 1
        is_hostile = rng.random() < fault.brigade
        served = Interaction(
            interaction_id=name,
            conversation_id=name,
            subject_id=name,
            tenant="hostile" if is_hostile else f"tenant-{rng.randrange(10)}",
            messages=[],
            response="",
            base_model="none",
            adapter_digest=self.arms[not is_canary],
            latency_ms=1000 * (LATENCY_S + fault.delay_s * is_canary),
            served_at=at,
        )
        share = self.public.vote_share * fault.vote_factor * (1 - fault.given_up * is_canary)
        if rng.random() >= share:
            return [served]
        likes = rng.random() < self.public.approval + fault.gain * is_canary
        is_up = not is_canary if is_hostile else likes
        value = 1.0 if is_up else -1.0
        vote = Feedback(
            feedback_id=name, interaction_id=name, subject_id=name, kind="thumb", value=value, created_at=at + 1
        )
        return [served, vote]

    def _reconcile(self) -> str:
        targets = Targets(
            store=self.store,
            ledger=self.ledger,
            cluster=self,
            values=self.git,
            registry=self.registry,
            model="adapter",
            gate_state=lambda: {} if self.is_gate_away else self.gate.state,
            holder="rehearsal",
            lease_s=4 * self.interval_s,
            clock=lambda: self.now,
        )
        if self.fault.kills_reconciler:  # before its first write, the next one before its second, and so on
            targets = killed_before_write(targets, self.num_kills)
        try:
            return reconcile(targets, self.now).action.kind
        except Killed:
            self.num_kills += 1
            return "killed"

    def _result(self, opened: LedgerRecord, action: str) -> VirtualClockResult:
        last, seen = self.ledger.records()[-1], self.look()
        outcome = last.event if last.event in CLOSING else "page" if action == "page" else "open"
        champion = CHAMPION if self.registry.aliases["champion"] == CHAMPION.version else CANDIDATE
        expected = CANDIDATE if outcome == "promoted" else CHAMPION
        return VirtualClockResult(
            outcome=outcome,
            why=last.why,
            minutes=(self.now - opened.at) / 60,
            canary_votes=self.gate.evidence.votes["canary"].n if self.gate.evidence else 0,
            agrees=seen.weight == 0 and seen.primary == self.git.adapter == champion == expected,
        )


def rehearse_once(manifests: Manifests, config: Config, fault: Fault, public: Public, seed: int) -> VirtualClockResult:
    """Return how one release of a candidate with this fault ends."""
    return Rehearsal(manifests, MemoryGit(CHAMPION), config=config, fault=fault, public=public, seed=seed).play()
