"""Record the route's weight over time in the lake, so that a restarted gate knows the whole run.

`canaries/{request:08d}/{n:04d}.json`, one object per change of weight. Between two looks the weight is taken for
constant: without a gate Flagger raises it in one case only, after a route was written anew while promotion waits.
"""

from pydantic import BaseModel, ConfigDict

from ratchet.errors import Conflict
from ratchet.release.gate.design import WeightSpan
from ratchet.store import Store

ROOT = "canaries"


class Change(BaseModel):
    """A change of weight: the old one was last seen at `previous_end`, `weight` first at `start` (Unix seconds)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    previous_end: float
    start: float
    weight: int


def had_traffic(store: Store, request: int) -> bool:
    """Return whether this release's canary ever took requests, which Flagger sends to none that is not ready."""
    return TrafficLog(store, request).num_steps > 0


class TrafficLog:
    """The weights of one release's canary."""

    def __init__(self, store: Store, request: int) -> None:
        self.store, self.folder = store, f"{ROOT}/{request:08d}"
        self._load()

    def observe(self, now: float, weight: int) -> None:
        """Record that the route sends `weight` percent to the canary at `now`; writes only if the weight changed."""
        if self._changes and self._changes[-1].weight == weight:
            self._last_seen = now
            return
        change = Change(previous_end=self._last_seen, start=now, weight=weight)
        try:
            self.store.create(f"{self.folder}/{len(self._changes):04d}.json", change.model_dump_json().encode())
        except Conflict:  # another gate recorded it first
            self._load()
            return
        self._changes.append(change)
        self._last_seen = now

    def spans(self) -> tuple[WeightSpan, ...]:
        """Return the spans of constant weight, in order; empty before the first observation."""
        ends = [*(change.previous_end for change in self._changes[1:]), self._last_seen]
        pairs = zip(self._changes, ends, strict=False)  # no change yet: no span
        return tuple(WeightSpan(start=change.start, end=end, weight=change.weight) for change, end in pairs)

    @property
    def num_steps(self) -> int:
        """Traffic steps taken. One that is taken again, after the route was written anew, counts once."""
        return len({change.weight for change in self._changes} - {0})

    def _load(self) -> None:
        self._changes = [Change.model_validate_json(self.store.read(key)) for key in self.store.list(self.folder)]
        self._last_seen = self._changes[-1].start if self._changes else 0.0
