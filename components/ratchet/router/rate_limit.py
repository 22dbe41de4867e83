"""Limit how often one person may vote: a token bucket per subject, in this process."""

from collections import OrderedDict
from collections.abc import Callable

MAX_SUBJECTS = 100_000  # most recent voters; an evicted one starts again with a full bucket


class RateLimit:
    """A token bucket of `burst` votes, refilled at `per_minute`. `clock` is monotonic, in seconds."""

    def __init__(self, per_minute: float, burst: int, clock: Callable[[], float]) -> None:
        self._rate_s, self._burst, self._clock = per_minute / 60, burst, clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait_s(self, subject: str) -> float:
        """Take one vote from the subject's bucket and return 0, or return the seconds until there is one."""
        now = self._clock()
        level, since = self._buckets.pop(subject, (self._burst, now))
        level = min(self._burst, level + (now - since) * self._rate_s)
        is_allowed = level >= 1
        self._buckets[subject] = (level - is_allowed, now)
        if len(self._buckets) > MAX_SUBJECTS:
            self._buckets.popitem(last=False)
        return 0.0 if is_allowed else (1 - level) / self._rate_s
