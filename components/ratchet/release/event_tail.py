"""Follows the lake's events: each landing file is read once, since landing files never change."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

from pydantic import ValidationError

from ratchet.events import Feedback, Interaction
from ratchet.lake import landing
from ratchet.release.evidence import Served, Vote
from ratchet.store import Store


class EventTail:
    """Answers served and votes cast since a moment, as far as they have landed at the last `read`."""

    def __init__(self, store: Store, since: float) -> None:
        self.store, self.since = store, since
        self.served: list[Served] = []
        self.votes: list[Vote] = []
        self.num_malformed = 0
        self._read: set[str] = set()

    def read(self, now: float) -> None:
        """Take in what is new. Lines that are no event are counted and skipped: the data contract reports them."""
        for line in self._new_lines("feedback", now):
            self._take(line, self._take_vote)
        for line in self._new_lines("interaction", now):
            self._take(line, self._take_answer)

    def _take(self, line: bytes, kind: Callable[[bytes], None]) -> None:
        try:
            kind(line)
        except ValidationError:
            self.num_malformed += 1

    def _take_vote(self, line: bytes) -> None:
        vote = Vote.of(Feedback.model_validate_json(line))
        if vote is not None:
            self.votes.append(vote)

    def _take_answer(self, line: bytes) -> None:
        self.served.append(Served.of(Interaction.model_validate_json(line)))

    def _new_lines(self, event_type: landing.EventType, now: float) -> Iterator[bytes]:
        for day in _days(self.since, now):
            for key in self.store.list(f"{landing.ROOT}/{event_type}/dt={day}"):
                if key not in self._read and key.endswith(".jsonl"):
                    yield from (line for _, line in landing.lines(self.store, key))
                    self._read.add(key)


def _days(since: float, now: float) -> Iterator[str]:
    """Every day from the one before `since`: writers' clocks may lag."""
    day = datetime.fromtimestamp(since, UTC).date() - timedelta(days=1)
    last = datetime.fromtimestamp(now, UTC).date() + timedelta(days=1)
    while day <= last:
        yield day.isoformat()
        day += timedelta(days=1)
