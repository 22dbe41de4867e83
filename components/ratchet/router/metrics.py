"""Count a router's requests and votes, by arm. A vote that is sent twice counts twice here, and once in the lake.

Requests that their client got wrong, or left, say nothing of an arm, so they are counted apart and for none.
"""

from prometheus_client import CollectorRegistry, Counter, Histogram

from ratchet.router.feedback import VoteRequest

SECONDS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300)


class RouterMetrics:
    """Prometheus metrics of one process, in a registry of their own."""

    def __init__(self, arm: str) -> None:
        self.registry, self.arm = CollectorRegistry(), arm
        self.requests = self._counter("ratchet_requests", "Chats that were answered or failed", "status")
        self.refused_requests = Counter(
            "ratchet_refused_requests", "Chats that their client got wrong or left", ("status",), registry=self.registry
        )
        self.forwarded = self._counter("ratchet_forwarded_requests", "Chats that went on to the other arm, as begun")
        self.votes = self._counter("ratchet_votes", "Feedback accepted", "kind", "value")
        self.refused_votes = self._counter("ratchet_refused_votes", "Feedback refused", "status")
        self.not_stored = self._counter("ratchet_events_not_stored", "Events that the lake did not take")
        self.retries = self._counter("ratchet_upstream_retries", "Requests sent to the pool again")
        self.fallbacks = self._counter("ratchet_fallbacks", "Requests that the base model answered instead")
        self.unfinished = self._counter("ratchet_unfinished_streams", "Answers that broke off or were left", "ending")
        self.latency = self._histogram("ratchet_request_latency_seconds", "From request to recorded answer")
        self.first_byte = self._histogram("ratchet_time_to_first_byte_seconds", "From request to a stream's first byte")

    def count_request(self, status: int) -> None:
        """Count a chat at its end; a stream that breaks off has the status of its error event."""
        if 400 <= status < 500:
            self.refused_requests.labels(status).inc()
        else:
            self.requests.labels(self.arm, status).inc()

    def count_vote(self, vote: VoteRequest) -> None:
        value = str(vote.value) if vote.kind in ("thumb", "rating") else ""  # the others have too many values
        self.votes.labels(self.arm, vote.kind, value).inc()

    def _counter(self, name: str, what: str, *labels: str) -> Counter:
        return Counter(name, what, ("arm", *labels), registry=self.registry)

    def _histogram(self, name: str, what: str) -> Histogram:
        return Histogram(name, what, ("arm",), registry=self.registry, buckets=SECONDS)
