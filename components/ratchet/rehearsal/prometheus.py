"""Measure a canary as the chart's MetricTemplates do: by a Prometheus, or without one from a router's own /metrics.

Its own cover all requests of the pod, where Prometheus covers the last minutes; a canary's pod is as old as its run.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

QUANTILE = 0.95


def ask(client: httpx.Client, template: Mapping[str, Any], words: Mapping[str, str]) -> float | None:
    """Return the first value of a MetricTemplate's query, as Flagger asks for it; None without one, or an answer.

    `words` fill in `{{ namespace }}`, `{{ target }}` and `{{ interval }}`.
    """
    spec = template["spec"]
    query = re.sub(r"{{ (\w+) }}", lambda found: words[found[1]], spec["query"])
    try:
        answer = client.get(f"{spec['provider']['address']}/api/v1/query", params={"query": query}).raise_for_status()
    except httpx.HTTPError:
        return None
    return next((float(series["value"][1]) for series in answer.json()["data"]["result"]), None)


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
