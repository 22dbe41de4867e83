"""One release on trial: what the gate gathers on it, look by look, and can gather again after a restart."""

from ratchet.adapter_ref import AdapterDigest
from ratchet.config import Gate
from ratchet.release.gate.blocks import CanaryDesign
from ratchet.release.gate.event_tail import EventTail
from ratchet.release.gate.evidence import Evidence, weigh
from ratchet.release.gate.traffic_log import TrafficLog
from ratchet.release.gate.webhooks import JUDGED_PHASES
from ratchet.release.ledger import LedgerRecord
from ratchet.release.reconciler.kubernetes import ClusterSnapshot
from ratchet.store import Store


class CanaryRun:
    """Follows the canary of one open request."""

    def __init__(self, settings: Gate, store: Store, request: LedgerRecord) -> None:
        self.settings, self.request = settings, request
        self.baseline = request.baseline.digest if request.baseline else AdapterDigest("")
        self.evidence: Evidence | None = None
        """None until the canary has been seen to run."""
        self._events = EventTail(store, since=request.at)
        self._route = TrafficLog(store, request.seq)

    def look(self, seen: ClusterSnapshot, now: float) -> None:
        if self._is_running(seen):
            self._route.observe(now, seen.weight)
        spans = self._route.spans()
        if not spans:
            return
        self._events.read(now)
        run = CanaryDesign(
            candidate=self.request.adapter.digest,
            baseline=self.baseline,
            attempt=self.request.attempt,
            alpha=self.settings.alpha,
            margin=self.settings.non_inferiority_margin,
            max_tenant_share=self.settings.max_tenant_share,
            spans=spans,
        )
        self.evidence = weigh(run, self._events.served, self._events.votes)

    @property
    def num_steps(self) -> int:
        """Traffic steps taken so far."""
        return self._route.num_steps

    def age_s(self, now: float) -> float:
        """Seconds since the canary was first seen to run."""
        spans = self._route.spans()
        return now - spans[0].start if spans else 0.0

    def _is_running(self, seen: ClusterSnapshot) -> bool:
        arms = (seen.target.digest, seen.primary.digest)
        return seen.phase in JUDGED_PHASES and arms == (self.request.adapter.digest, self.baseline)
