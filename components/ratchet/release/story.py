"""The story of one release as people read it: a timeline of numbers, and a line for each thing that happened."""

from typing import Any

from ratchet.release.reconcile import Pass


class Story:
    """Grows pass by pass; keeps a row only when something changed. Times in seconds since the request."""

    def __init__(self, start: float) -> None:
        self.start = start
        self.timeline: list[dict[str, Any]] = []
        self.log: list[dict[str, Any]] = []
        self._last: dict[str, Any] = {}

    def say(self, now: float, text: str) -> None:
        self.log.append({"t": round(now - self.start, 3), "text": text})

    def add(self, now: float, done: Pass) -> None:
        self.note(now, "why", done.action.why if done.action.does in ("wait", "page") else None, "{}")
        if done.seen is not None:
            self.note(now, "phase", done.seen.phase, "canary: {}")
            self.note(now, "weight", done.seen.weight, "traffic: {} percent on the canary")
            self._add_row(now, done)
        if done.state.get("decision") in ("pass", "fail"):
            self.note(now, "decision", done.state["decision"], f"votes: {{}}; {done.state['why']}")
        for line in done.log:
            self.say(now, line)

    def note(self, now: float, what: str, value: Any, words: str) -> None:
        """Say it once, when it changes."""
        if value is not None and self._last.get(what) != value:
            self._last[what] = value
            self.say(now, words.format(value))

    def _add_row(self, now: float, done: Pass) -> None:
        if done.seen is None:
            return
        row = {
            "phase": done.seen.phase,
            "weight": done.seen.weight,
            "failed_checks": done.seen.failed_checks,
            "votes": done.state.get("votes", {}),
            "log_e": {test: done.state.get("log_e", {}).get(test, 0.0) for test in ("harm", "no_worse")},
        }
        if not self.timeline or {**self.timeline[-1], "t": None} != {**row, "t": None}:
            self.timeline.append({"t": round(now - self.start, 3), **row})
