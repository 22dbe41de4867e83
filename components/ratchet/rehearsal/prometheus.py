"""Compute the chart's MetricTemplates from one router's own /metrics, since no Prometheus runs here. Pure.

They cover all requests of the pod, where Prometheus covers the last minutes; a canary's pod is as old as its run.
"""

from collections.abc import Callable, Mapping

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

QUANTILE = 0.95


def measure(name: str, exposed: str) -> float | None:
    """Return the metric of that name from a router's exposition; None for a name that the chart does not have."""
    samples = [sample for family in text_string_to_metric_families(exposed) for sample in family.samples]
    return MEASURES[name](samples) if name in MEASURES else None


def _errors(samples: list[Sample]) -> float:
    """Return the percent of requests answered with 5xx; 0 without traffic."""
    requests = [sample for sample in samples if sample.name == "ratchet_requests_total"]
    failed = sum(sample.value for sample in requests if sample.labels["status"].startswith("5"))
    return 100 * failed / max(1.0, sum(sample.value for sample in requests))


def _latency(samples: list[Sample]) -> float:
    """Return the 95th percentile of the latency in seconds, as a bucket's upper end; 0 without traffic."""
    buckets = [sample for sample in samples if sample.name == "ratchet_request_latency_seconds_bucket"]
    counts = sorted((float(sample.labels["le"]), sample.value) for sample in buckets)
    if not counts or not counts[-1][1]:
        return 0.0
    return next(le for le, count in counts if count >= QUANTILE * counts[-1][1])


MEASURES: Mapping[str, Callable[[list[Sample]], float]] = {"errors": _errors, "latency": _latency}
