"""The charts' queries and alerts by Debian's Prometheus and promtool, over the routers' own processes."""

import re
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client import CollectorRegistry

from ratchet.config import Config
from ratchet.inference.adapter_pool import AdapterPool
from ratchet.inference.syncer import Syncer, create_app
from ratchet.rehearsal.prometheus import measure
from ratchet.release.gate.app import _Metrics
from ratchet.release.gate.state import GateState
from ratchet.release.ledger import Ledger
from ratchet.release.reconciler.health import Health
from ratchet.router.metrics import RouterMetrics
from ratchet.store import LocalStore
from support.helm_chart import Chart
from support.http_server import running
from support.prometheus_server import Prometheus, need_prometheus, prometheus
from support.router_client import SECRET
from support.vllm_server import service, wait_for

ON = {"podMonitor": {"enabled": True}, "alerts": {"enabled": True}}
CHARTS = {
    "adapter-router": {**ON, "prometheus": {"address": "http://prometheus:9090"}}, "model-pool": ON,
    "release-services": ON,
}  # fmt: skip
PROMETHEUS_AND_FLAGGER = {"up", "flagger_canary_status"}
TOKEN = "an operator's token, of thirty-two characters"
CANARY, PRIMARY, EARLIER = "adapter-router-7d9f-x1", "adapter-router-primary-5c8b-x2", "adapter-router-66aa-x3"
WINDOW = "20s"


def objects(chart: str) -> list[dict[str, Any]]:
    return Chart(chart).render(**CHARTS[chart])


def rules() -> list[dict[str, Any]]:
    made = [each for chart in CHARTS for each in objects(chart) if each["kind"] == "PrometheusRule"]
    assert len(made) == len(CHARTS)
    return [group for each in made for group in each["spec"]["groups"]]


def queries() -> dict[str, str]:
    """The MetricTemplates' queries for the canary, as Flagger fills them in."""
    filled = {"namespace": "ratchet", "target": "adapter-router", "interval": WINDOW}
    made = [each for each in objects("adapter-router") if each["kind"] == "MetricTemplate"]
    return {
        each["metadata"]["name"].removeprefix("adapter-router-"): re.sub(
            r"{{ (\w+) }}", lambda found: filled[found[1]], each["spec"]["query"]
        )
        for each in made
    }


def exposed(registry: CollectorRegistry) -> set[str]:
    suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",)}
    return {family.name + suffix for family in registry.collect() for suffix in suffixes[family.type]}


def test_every_series_that_a_query_names_is_one_that_a_service_has(lake: LocalStore, tmp_path: Path) -> None:
    gate = CollectorRegistry()
    gate.register(_Metrics(GateState(Config(), lake, None)))  # type: ignore[arg-type]
    with running(create_app(Syncer(Ledger(lake), AdapterPool("http://127.0.0.1:9", tmp_path), 4), 60)) as url:
        syncer = set(re.findall(r"^(\w+)", httpx.get(f"{url}/metrics").text, re.MULTILINE))
    known = syncer | exposed(gate) | exposed(Health().registry) | exposed(RouterMetrics("canary").registry)
    asked = [rule["expr"] for group in rules() for rule in group["rules"]] + list(queries().values())
    named = {name for text in asked for name in re.findall(r"([a-z_:]+){", text)}
    assert named - known - PROMETHEUS_AND_FLAGGER == {"vllm:request_success_total"}, "tests/inference/test_vllm.py"
    assert len(named) > 8


@pytest.mark.slow
def test_promtool_takes_the_rules_and_every_alert_fires_when_it_should(tmp_path: Path) -> None:
    need_prometheus()
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": rules()}))
    subprocess.run(["promtool", "check", "rules", str(tmp_path / "rules.yaml")], check=True, capture_output=True)
    tests = yaml.safe_load((Path(__file__).parent / "alerts.yaml").read_text())
    fired = {alert["alertname"] for test in tests for alert in test["alert_rule_test"] if alert["exp_alerts"]}
    quiet = {alert["alertname"] for test in tests for alert in test["alert_rule_test"] if not alert["exp_alerts"]}
    assert fired == quiet == {rule["alert"] for group in rules() for rule in group["rules"]}
    annotations = {rule["alert"]: rule for group in rules() for rule in group["rules"]}
    for alert in (alert for test in tests for alert in test["alert_rule_test"]):
        for expected in alert["exp_alerts"]:
            rule = annotations[alert["alertname"]]
            expected["exp_labels"] = {**rule["labels"], **expected["exp_labels"]}
            texts = rule["annotations"] | expected.get("exp_annotations", {})
            expected["exp_annotations"] = texts
    cases = {"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": tests}
    (tmp_path / "tests.yaml").write_text(yaml.safe_dump(cases))
    ran = subprocess.run(["promtool", "test", "rules", str(tmp_path / "tests.yaml")], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr


class Arms:
    """Router processes before a stub pool, under Prometheus."""

    def __init__(self, folder: Path, pool: str, prometheus: Prometheus, services: ExitStack) -> None:
        self.folder, self.pool, self.prometheus, self._services = folder, pool, prometheus, services
        self.urls: dict[str, str] = {}
        self._stops: dict[str, ExitStack] = {}

    def start(self, pod: str, adapter: str) -> None:
        env = {"POOL_URL": self.pool, "LAKE": str(self.folder / "lake"), "SECRET": SECRET, "PORT": "0"}
        env |= {"ARM": pod.rsplit("-", 2)[0], "OPERATOR_TOKEN": TOKEN, "RETRIES": "0"}
        if adapter:
            env |= {"ADAPTER_NAME": "adapter", "ADAPTER_VERSION": adapter, "ADAPTER_DIGEST": adapter * 64}
        stop = self._stops[pod] = self._services.enter_context(ExitStack())
        named = {f"RATCHET_{name}": value for name, value in env.items()}
        self.urls[pod] = stop.enter_context(service(self.folder / f"{pod}.log", "ratchet.router.app", **named))

    def stop(self, pod: str) -> None:
        self._stops.pop(pod).close()

    def forget(self, pod: str) -> None:
        """As when the pod is deleted: no longer a target."""
        del self.urls[pod]
        self.watch()

    def watch(self) -> None:
        self.prometheus.scrape(self.urls)
        wait_for(lambda: len(self.prometheus.query("up")) == len(self.urls))

    def ask(self, pod: str, times: int) -> list[int]:
        body = {"model": "assistant", "messages": [{"role": "user", "content": "Why?"}]}
        with httpx.Client(base_url=self.urls[pod], timeout=30) as client:
            return [client.post("/v1/chat/completions", json=body).status_code for _ in range(times)]

    def metrics(self, pod: str) -> str:
        return httpx.get(f"{self.urls[pod]}/metrics", headers={"authorization": f"Bearer {TOKEN}"}).text


@pytest.fixture
def arms(tmp_path: Path) -> Iterator[Arms]:
    need_prometheus()
    manners = '{"adapter@v1": {"delay_s": 0, "errors": 0.3}, "adapter@v2": {"delay_s": 0, "errors": 1.0},'
    manners += ' "stub": {"delay_s": 0}}'
    with ExitStack() as services:
        stub = ("ratchet.rehearsal.stub_pool", "--port", "0", "--manners", manners)
        pool = services.enter_context(service(tmp_path / "pool.log", *stub))
        for version in ("1", "2"):
            httpx.post(f"{pool}/v1/load_lora_adapter", json={"lora_name": f"adapter@v{version}"}).raise_for_status()
        yield Arms(tmp_path, pool, services.enter_context(prometheus(tmp_path / "prometheus", TOKEN)), services)


@pytest.mark.slow
def test_the_templates_measure_the_canary_and_tell_no_traffic_from_no_scrape(arms: Arms) -> None:
    errors, latency = queries()["errors"], queries()["latency"]
    found = arms.prometheus.query
    arms.start(PRIMARY, "")
    arms.start(CANARY, "1")
    assert (found(errors), found(latency)) == ([], []), "nothing is read yet"
    arms.watch()
    arms.prometheus.wait_for(errors, [0.0])
    arms.prometheus.wait_for(latency, [0.0])
    first = arms.ask(CANARY, 40)  # so that each status has a series before it is counted
    assert {status >= 500 for status in first} == {True, False}
    arms.prometheus.wait_for(f'sum(ratchet_requests_total{{pod="{CANARY}"}})', [float(len(first))])
    statuses = arms.ask(CANARY, 200)
    assert {status >= 500 for status in arms.ask(PRIMARY, 50)} == {False}
    arms.prometheus.wait_for(f'sum(ratchet_requests_total{{pod="{CANARY}"}})', [float(len(first + statuses))])
    share = 100 * sum(status >= 500 for status in statuses) / len(statuses)
    [percent] = found(errors)
    assert percent == pytest.approx(share, abs=8)
    [seconds] = found(latency)
    assert 0 < seconds < 1
    modelled = measure("errors", arms.metrics(CANARY))
    assert modelled is not None
    assert percent == pytest.approx(modelled, abs=10), "the rehearsal's model of the template"
    arms.stop(CANARY)
    arms.prometheus.wait_for(errors, [])
    arms.prometheus.wait_for(latency, [])


@pytest.mark.slow
def test_an_earlier_candidates_failures_do_not_count(arms: Arms) -> None:
    errors = queries()["errors"]
    arms.start(EARLIER, "2")
    arms.watch()
    arms.ask(EARLIER, 20)
    arms.prometheus.wait_for(f'sum(ratchet_requests_total{{pod="{EARLIER}"}})', [20.0])
    arms.ask(EARLIER, 20)
    arms.prometheus.wait_for(errors, [100.0])
    arms.stop(EARLIER)
    arms.start(CANARY, "1")
    arms.forget(EARLIER)
    arms.prometheus.wait_for(errors, [0.0], seconds=10)
