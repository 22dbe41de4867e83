"""One canary as the gate weighs it, without a lake: take in events, read strata, weigh."""

from collections.abc import Iterable, Sequence
from typing import Any

from ratchet.adapter_ref import AdapterDigest
from ratchet.release.gate.ballots import BEFORE_ALL, TESTS, Ballots, TestName
from ratchet.release.gate.design import CanaryDesign, WeightSpan
from ratchet.release.gate.evidence import Evidence, run_tests, weigh
from ratchet.release.gate.strata import Stratum
from ratchet.release.gate.votes import ServedAnswer, Vote

LATER = 1e9
OLD, NEW = AdapterDigest("base"), AdapterDigest("b" * 64)


def design(*spans: tuple[float, float, int], **changes: Any) -> CanaryDesign:
    """Return a first canary of NEW beside OLD, alpha 0.05 and a margin of 10 points; spans: start, end, weight."""
    fields: dict[str, Any] = {"candidate": NEW, "baseline": OLD, "attempt": 1, "alpha": 0.05, "margin": 0.1}
    weights = tuple(WeightSpan(start=start, end=end, weight=weight) for start, end, weight in spans)
    return CanaryDesign(**fields | {"spans": weights} | changes)


class GateRun:
    """A gate that keeps the strata that it has read."""

    def __init__(self, run: CanaryDesign, read: dict[TestName, list[Stratum]] | None = None) -> None:
        self.run, self.ballots = run, Ballots()
        self.strata: dict[TestName, list[Stratum]] = read or {test: [] for test in TESTS}

    def look(self, served: Iterable[ServedAnswer], votes: Iterable[Vote], now: float = LATER) -> Evidence:
        """Take in new events at `now` (Unix seconds)."""
        self.ballots.take(self.run, served, votes)
        for test, strata in self.strata.items():
            strata += self.ballots.read(test, self.run, strata[-1].last if strata else BEFORE_ALL, now)
        return weigh(self.run, self.ballots, run_tests(self.run, self.strata))


def evidence_of(run: CanaryDesign, served: Sequence[ServedAnswer], votes: Sequence[Vote]) -> Evidence:
    """Return the evidence of a whole run, read once at its end."""
    return GateRun(run).look(served, votes)
