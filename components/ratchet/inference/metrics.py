"""Expose the CPU pool's metrics under vLLM's names and labels, so that one dashboard shows both."""

import time
from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from ratchet.inference.batching import GenerationRow
from ratchet.inference.engine import Engine

LABELS = ("model_name", "engine")
ENGINE = "0"
FINISH_REASONS = ("stop", "length", "abort", "error", "repetition")  # vLLM's, each counted from 0
SECONDS = (0.01, 0.05, 0.1, 0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240)


class EngineMetrics:
    """Metrics of finished requests, aborted ones included."""

    def __init__(self, model_name: str, engine: Engine, adapters: Callable[[], Mapping[str, str]]) -> None:
        self.registry, self._labels = CollectorRegistry(), (model_name, ENGINE)
        self.registry.register(Running(model_name, engine, adapters))
        self.finished = Counter(
            "vllm:request_success", "Finished requests", (*LABELS, "finished_reason"), registry=self.registry
        )
        for reason in FINISH_REASONS:
            self.finished.labels(*self._labels, reason)
        self.prompt_tokens = Counter("vllm:prompt_tokens", "Tokens read", LABELS, registry=self.registry)
        self.generation_tokens = Counter("vllm:generation_tokens", "Tokens written", LABELS, registry=self.registry)
        self.queue = self._seconds("request_queue_time_seconds", "From request to the batch")
        self.prefill = self._seconds("request_prefill_time_seconds", "From the batch to the first token")
        self.decode = self._seconds("request_decode_time_seconds", "From the first token to the last")
        self.first_token = self._seconds("time_to_first_token_seconds", "From request to the first token")
        self.per_token = self._seconds("request_time_per_output_token_seconds", "Between two tokens, on average")
        self.latency = self._seconds("e2e_request_latency_seconds", "From request to answer")

    def count(self, row: GenerationRow) -> None:
        self.finished.labels(*self._labels, row.finish_reason or "abort").inc()
        self.prompt_tokens.labels(*self._labels).inc(len(row.prompt))
        self.generation_tokens.labels(*self._labels).inc(len(row.tokens))
        if not row.finished_at:  # aborted before it was done
            return
        decode_s = row.finished_at - row.first_token_at
        for histogram, seconds in (
            (self.queue, row.admitted_at - row.arrived_at),
            (self.prefill, row.first_token_at - row.admitted_at),
            (self.decode, decode_s),
            (self.first_token, row.first_token_at - row.arrived_at),
            (self.per_token, decode_s / max(1, len(row.tokens) - 1)),
            (self.latency, row.finished_at - row.arrived_at),
        ):
            histogram.labels(*self._labels).observe(seconds)

    def _seconds(self, name: str, what: str) -> Histogram:
        return Histogram(f"vllm:{name}", what, LABELS, registry=self.registry, buckets=SECONDS)


class Running(Collector):
    """Gauges of running and waiting requests, read from the engine at each scrape."""

    def __init__(self, model_name: str, engine: Engine, adapters: Callable[[], Mapping[str, str]]) -> None:
        self._labels, self._engine, self._adapters = (model_name, ENGINE), engine, adapters

    def collect(self) -> Iterator[GaugeMetricFamily]:
        running, waiting, names = self._engine.running, self._engine.waiting, self._adapters()
        for name, what, value in (
            ("num_requests_running", "Requests in the batch", len(running)),
            ("num_requests_waiting", "Requests not yet in it", len(waiting)),
            ("kv_cache_usage_perc", "Share of the KV cache in use, 0 to 1", self._engine.cache_share),
        ):
            gauge = GaugeMetricFamily(f"vllm:{name}", what, labels=LABELS)
            gauge.add_metric(self._labels, value)
            yield gauge
        info = GaugeMetricFamily(
            "vllm:lora_requests_info",
            "Adapters at work; the value is the time",
            labels=("max_lora", "running_lora_adapters", "waiting_lora_adapters"),
        )
        info.add_metric((str(len(names)), _names(running, names), _names(waiting, names)), time.time())
        yield info


def _names(rows: list[GenerationRow], names: Mapping[str, str]) -> str:
    return ",".join(sorted({names.get(row.adapter, "") for row in rows if row.adapter}))
