"""Follow the lake's events: each landing file is read once, since landing files never change.

Writers name files by the time, so most reads list only the newest: routers write up to millions a day. A file with
another name, or one that landed later than LATE_S, is found by the next full listing.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from math import inf

from pydantic import ValidationError

from ratchet.events import Feedback, Interaction
from ratchet.ingest import landing
from ratchet.release.gate.votes import ServedAnswer, Vote
from ratchet.store import Store

LATE_S = 900  # between the time in a file's name and its landing: a writer gives up within seconds, clocks may differ
ALL_S = 600  # between two full listings
READERS = 16  # files at once
AHEAD = 256  # files in memory


class EventTail:
    """Answers served and votes cast since `since` (Unix seconds) that landed, as `served` and `votes` until taken.

    `keep` gets each answer with its texts. A file that is not named by its time may be missed for ALL_S.
    """

    def __init__(self, store: Store, since: float, keep: Callable[[Interaction], None] = lambda served: None) -> None:
        self.store, self.since, self._keep = store, since, keep
        self.served: list[ServedAnswer] = []
        self.votes: list[Vote] = []
        self.num_malformed = 0
        self._read: set[str] = set()
        # S3 answers one request in tens of milliseconds: read one by one, a busy day's files outrun the gate.
        self._readers = ThreadPoolExecutor(READERS)
        self._saw_all_at = -inf

    def read(self, now: float) -> None:
        """Take in the new files. Lines that are no event are counted and skipped: the data contract reports them."""
        is_all = not 0 <= now - self._saw_all_at < ALL_S
        for line in self._new_lines("feedback", now, is_all):
            self._take(line, self._take_vote)
        for line in self._new_lines("interaction", now, is_all):
            self._take(line, self._take_answer)
        if is_all:
            self._saw_all_at = now

    def take(self) -> tuple[list[ServedAnswer], list[Vote]]:
        """Return what was read since the last call, which is then forgotten."""
        taken = self.served, self.votes
        self.served, self.votes = [], []
        return taken

    def _take(self, line: bytes, parse: Callable[[bytes], None]) -> None:
        try:
            parse(line)
        except ValidationError:
            self.num_malformed += 1

    def _take_vote(self, line: bytes) -> None:
        vote = Vote.of(Feedback.model_validate_json(line))
        if vote is not None:
            self.votes.append(vote)

    def _take_answer(self, line: bytes) -> None:
        served = Interaction.model_validate_json(line)
        self._keep(served)
        self.served.append(ServedAnswer.of(served))

    def _new_lines(self, event_type: landing.EventType, now: float, is_all: bool) -> Iterator[bytes]:
        for day in _days(self.since, now):
            folder = f"{landing.ROOT}/{event_type}/dt={day}"
            listed = self.store.list(folder, after="" if is_all else landing.after(folder, now - LATE_S))
            new = [key for key in listed if key not in self._read and key.endswith(".jsonl")]
            for begin in range(0, len(new), AHEAD):
                keys = new[begin : begin + AHEAD]
                for key, lines in zip(keys, self._readers.map(self._lines, keys), strict=True):
                    yield from lines
                    self._read.add(key)

    def _lines(self, key: str) -> list[bytes]:
        return [line for _, line in landing.lines(self.store, key)]


def _days(since: float, now: float) -> Iterator[str]:
    """Yield every day from the one before `since` to the one after `now`: writers' clocks may differ."""
    day = datetime.fromtimestamp(since, UTC).date() - timedelta(days=1)
    last = datetime.fromtimestamp(now, UTC).date() + timedelta(days=1)
    while day <= last:
        yield day.isoformat()
        day += timedelta(days=1)
