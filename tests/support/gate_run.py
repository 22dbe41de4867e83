"""One canary as the gate weighs it, without a lake: take in events, read strata, weigh."""

from collections.abc import Iterable, Sequence

from ratchet.release.gate.ballots import BEFORE_ALL, TESTS, Ballots, TestName
from ratchet.release.gate.design import CanaryDesign
from ratchet.release.gate.evidence import Evidence, run_tests, weigh
from ratchet.release.gate.strata import Stratum
from ratchet.release.gate.votes import ServedAnswer, Vote

LATER = 1e9


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
