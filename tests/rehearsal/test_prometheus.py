"""A router's own metrics, read as the chart's MetricTemplates read them from Prometheus."""

from prometheus_client import generate_latest

from ratchet.rehearsal.prometheus import measure
from ratchet.router.metrics import RouterMetrics


def test_errors_are_the_percentage_of_5xx() -> None:
    metrics = RouterMetrics("canary")
    for status, number in ((200, 90), (422, 5), (502, 5)):
        metrics.requests.labels("canary", status).inc(number)
    assert measure("errors", exposed(metrics)) == 5.0


def test_latency_is_the_bucket_of_the_95th_percentile() -> None:
    metrics = RouterMetrics("canary")
    for seconds, number in ((0.2, 95), (9.0, 5)):
        for _ in range(number):
            metrics.latency.labels("canary").observe(seconds)
    assert measure("latency", exposed(metrics)) == 0.25
    metrics.latency.labels("canary").observe(9.0)
    assert measure("latency", exposed(metrics)) == 10.0


def test_without_traffic_both_are_0_and_no_other_has_values() -> None:
    empty = exposed(RouterMetrics("canary"))
    assert [measure(name, empty) for name in ("errors", "latency", "satisfaction")] == [0.0, 0.0, None]


def exposed(metrics: RouterMetrics) -> str:
    return generate_latest(metrics.registry).decode()
