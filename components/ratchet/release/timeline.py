"""The timeline of one release: a row of numbers per change, and a line of text per event."""

from typing import Any

from ratchet.release.reconciler.kubernetes import ClusterSnapshot
from ratchet.release.reconciler.reconcile import ReconcileResult


class Timeline:
    """Rows and lines, added pass by pass, only when something changed. Times are seconds since the request."""

    def __init__(self, start: float, digest: str) -> None:
        self.start, self.digest = start, digest
        self.rows: list[dict[str, Any]] = []
        self.log: list[dict[str, Any]] = []
        self._last: dict[str, Any] = {}

    def add_line(self, now: float, text: str) -> None:
        self.log.append({"t": round(now - self.start, 3), "text": text})

    def add(self, now: float, done: ReconcileResult) -> None:
        self.note(now, "why", done.action.why if done.action.kind in ("wait", "page") else None, "{}")
        state = done.state if done.state.get("candidate") == self.digest else {}
        if done.snapshot is not None:
            self.note(now, "phase", done.snapshot.phase, "canary: {}")
            self.note(now, "weight", done.snapshot.weight, "traffic: {} percent on the canary")
            self._add_row(now, done.snapshot, state)
        if state.get("decision") in ("pass", "fail"):
            self.note(now, "decision", state["decision"], f"votes: {{}}; {state['why']}")
        for line in done.log:
            self.add_line(now, line)

    def note(self, now: float, what: str, value: Any, words: str) -> None:
        """Add a line when the value called `what` changes."""
        if value is not None and self._last.get(what) != value:
            self._last[what] = value
            self.add_line(now, words.format(value))

    def _add_row(self, now: float, snapshot: ClusterSnapshot, state: dict[str, Any]) -> None:
        last = self.rows[-1] if self.rows else {"votes": {}, "log_e": {"harm": 0.0, "non_inferiority": 0.0}}
        row = {
            **last,  # while the gate does not answer, the last votes are kept
            "phase": snapshot.phase,
            "weight": snapshot.weight,
            "failed_checks": snapshot.failed_checks,
        }
        if "log_e" in state:
            row |= {"votes": state["votes"], "log_e": {test: state["log_e"][test] for test in last["log_e"]}}
        if row != last:
            self.rows.append({**row, "t": round(now - self.start, 3)})
