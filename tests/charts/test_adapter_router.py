"""The chart, rendered by Helm itself and held against the schemas of Kubernetes, Flagger and Prometheus operator."""

import json
import os
import re
from pathlib import Path
from typing import Any

import helm_python
import jsonschema
import pytest
import yaml

from ratchet.errors import UserError
from ratchet.rehearsal.argo import OVERLAY, merge
from ratchet.rehearsal.canary_spec import read_canary
from ratchet.router.app import GRACE_S, create_app
from ratchet.router.settings import RouterSettings
from ratchet_pipelines.rehearse.memory import MemoryStore
from support import crd_schemas
from support.helm_chart import Chart, check_unprivileged, check_valid

CHART = Chart("adapter-router")
FIXED = Path(__file__).resolve().parents[2] / "infra" / "argocd" / "adapter-router-fixed.yaml"
RELEASED = {"adapter", "rolloutNonce", "skipAnalysis"}
RECORDINGS = Path(__file__).resolve().parents[1] / "rehearsal" / "recordings"
ADAPTER = {"name": "adapter", "version": "3", "uri": "s3://lake/adapters/x", "digest": "a" * 64}
WATCHED = {
    "prometheus": {"address": "http://prometheus:9090"}, "podMonitor": {"enabled": True}, "alerts": {"enabled": True},
}  # fmt: skip
NOBODY = {"pool_url": "http://127.0.0.1:9", "lake": "memory", "secret": "s" * 32}
rendered = CHART.kinds


def test_default_rendering_is_the_golden_file() -> None:
    CHART.check_golden()


@pytest.mark.parametrize("overlay", [{}, CHART.values(OVERLAY), WATCHED], ids=["default", "local", "watched"])
def test_every_object_is_valid_by_its_schema(overlay: dict[str, Any]) -> None:
    check_valid(CHART.render(**merge(overlay, {"adapter": ADAPTER})))


def test_schema_check_refuses_unknown_fields() -> None:
    canary = rendered()["Canary"]
    canary["spec"]["analysis"]["stepWeigths"] = [10]
    with pytest.raises(jsonschema.ValidationError, match="stepWeigths"):
        crd_schemas.check(canary, "flagger")


def test_metrics_name_templates_of_the_chart_and_say_over_how_long() -> None:
    objects = CHART.objects(**WATCHED)
    for metric in objects["Canary", "adapter-router"]["spec"]["analysis"]["metrics"]:
        assert metric["interval"], "without one Flagger asks for [] and fails"
        query = objects["MetricTemplate", metric["templateRef"]["name"]]["spec"]["query"]
        assert query.count("[{{ interval }}]") == query.count("rate(") > 0
        assert query.count('{namespace="{{ namespace }}",pod=~"{{ target }}-[0-9a-z]+-[0-9a-z]+"') == query.count("{n")


def test_prometheus_shows_the_routers_token_and_selects_by_label() -> None:
    objects = CHART.objects(**merge(WATCHED, {"podMonitor": {"labels": {"release": "prometheus"}}}))
    monitor = objects["PodMonitor", "adapter-router"]
    assert monitor["metadata"]["labels"] == {"release": "prometheus"}
    [endpoint] = monitor["spec"]["podMetricsEndpoints"]
    assert endpoint["authorization"] == {"credentials": {"name": "ratchet-router", "key": "operator-token"}}
    none = CHART.objects(**merge(WATCHED, {"metrics": {"tokenSecret": {"name": ""}}}))
    assert "authorization" not in none["PodMonitor", "adapter-router"]["spec"]["podMetricsEndpoints"][0]


def test_routers_environment_is_what_the_router_reads() -> None:
    template = rendered(adapter=ADAPTER, pool={"retries": 2, "fallback": "base"})["Deployment"]["spec"]["template"]
    secrets = {"RATCHET_SECRET": "s" * 32, "RATCHET_API_KEYS": "acme=" + "k" * 16, "RATCHET_OPERATOR_TOKEN": "o" * 16}
    known = {**secrets, "RATCHET_ARM": "adapter-router"}
    given = {entry["name"]: entry.get("value") for entry in template["spec"]["containers"][0]["env"]}
    settings = RouterSettings.from_env({name: value or known[name] for name, value in given.items()})
    assert (settings.retries, settings.fallback, settings.pool_model) == (2, "base", "adapter@v3")
    assert settings.timeout_s < 120, "the gateway's own timeout would hide what was late"


def test_network_policy_is_for_the_routers() -> None:
    policy = rendered()["NetworkPolicy"]["spec"]
    assert policy["podSelector"]["matchExpressions"][0]["values"] == ["adapter-router", "adapter-router-primary"]
    assert Chart("model-pool").values()["name"] == policy["egress"][1]["to"][0]["podSelector"]["matchLabels"]["app"]


def test_more_may_be_reached_and_the_lake_only_where_it_is() -> None:
    collector = {"to": [{"podSelector": {"matchLabels": {"app": "collector"}}}], "ports": [{"port": 4318}]}
    store = {"ipBlock": {"cidr": "10.0.8.0/24"}}
    policy = rendered(networkPolicy={"lake": [store], "egress": [collector]})["NetworkPolicy"]
    check_valid([policy])
    *_, lake, more = policy["spec"]["egress"]
    assert (lake["to"], lake["ports"]) == ([store], [{"protocol": "TCP", "port": 443}])
    assert more == collector


def test_routers_of_both_arms_reach_each_other_where_conversations_stay_on_their_arm() -> None:
    objects = rendered(affinity={"enabled": True})
    [container] = objects["Deployment"]["spec"]["template"]["spec"]["containers"]
    [peer] = [entry["value"] for entry in container["env"] if entry["name"] == "RATCHET_PEER_URL"]
    assert {peer.format(arm=arm) for arm in ("primary", "canary")} == {
        "http://adapter-router-primary", "http://adapter-router-canary"
    }  # fmt: skip
    assert objects["Canary"]["spec"]["service"]["port"] == 80, "which the address does not name"
    policy = objects["NetworkPolicy"]["spec"]
    selector = {"podSelector": policy["podSelector"]}
    assert any(selector in rule["from"] for rule in policy["ingress"])
    assert any(selector in rule.get("to", ()) for rule in policy["egress"])
    [container] = rendered()["Deployment"]["spec"]["template"]["spec"]["containers"]
    assert "RATCHET_PEER_URL" not in [entry["name"] for entry in container["env"]]


def test_a_drained_node_leaves_a_primary_and_an_autoscaler_of_two_pods_or_more_brings_it_back() -> None:
    objects = rendered(autoscaling={"minReplicas": 3, "maxReplicas": 9})
    budget, scaler = objects["PodDisruptionBudget"]["spec"], objects["HorizontalPodAutoscaler"]
    assert (budget["minAvailable"], budget["selector"]["matchLabels"]) == (2, {"app": "adapter-router-primary"})
    reference = objects["Canary"]["spec"]["autoscalerRef"]
    assert reference["primaryScalerReplicas"] == {"minReplicas": 3, "maxReplicas": 9}
    assert (reference["kind"], reference["name"]) == (scaler["kind"], scaler["metadata"]["name"])
    assert scaler["spec"]["scaleTargetRef"]["name"] == objects["Canary"]["spec"]["targetRef"]["name"]


def test_without_an_autoscaler_no_budget_keeps_a_node_from_being_drained() -> None:
    objects = rendered(autoscaling={"enabled": False})
    assert set(objects) == {"Deployment", "Canary", "NetworkPolicy"}
    assert "autoscalerRef" not in objects["Canary"]["spec"]


def test_pods_of_each_arm_are_spread_by_labels_that_both_arms_have() -> None:
    template = rendered()["Deployment"]["spec"]["template"]
    for spread in template["spec"]["topologySpreadConstraints"]:
        assert spread["labelSelector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
        assert "app" not in spread["labelSelector"]["matchLabels"], "Flagger renames it on the primary"
        assert "app" in spread["matchLabelKeys"]


def test_probes_are_the_routers_own_and_its_grace_fits_into_the_pods() -> None:
    pod = rendered()["Deployment"]["spec"]["template"]["spec"]
    [container] = pod["containers"]
    paths = {route.path for route in create_app(RouterSettings(**NOBODY), MemoryStore()).routes}
    assert {container[probe]["httpGet"]["path"] for probe in ("readinessProbe", "livenessProbe")} <= paths
    wait_s = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert GRACE_S + wait_s < pod["terminationGracePeriodSeconds"]


def test_flagger_owns_replicas_services_and_routes() -> None:
    manifests = rendered()
    assert set(manifests) == {
        "Deployment", "Canary", "HorizontalPodAutoscaler", "PodDisruptionBudget", "NetworkPolicy"
    }  # fmt: skip
    assert "replicas" not in manifests["Deployment"]["spec"]


def test_pod_template_follows_the_adapter_and_the_nonce_and_nothing_else() -> None:
    before = rendered(adapter=ADAPTER)["Deployment"]["spec"]["template"]
    unrelated = {
        "gate": {"url": "http://other.place:1"},
        "analysis": {"interval": "5m", "threshold": 9, "stepWeights": [1]},
        "gateway": {"hosts": ["other.example.com"]},
        "skipAnalysis": True,
        "progressDeadlineSeconds": 5,
        "networkPolicy": {"enabled": False},
        **WATCHED,
    }
    assert rendered(adapter=ADAPTER, **unrelated)["Deployment"]["spec"]["template"] == before
    assert rendered(adapter=ADAPTER, rolloutNonce="again")["Deployment"]["spec"]["template"] != before
    assert rendered(adapter=ADAPTER | {"version": "4"})["Deployment"]["spec"]["template"] != before


def test_pod_template_has_no_chart_label_and_no_config_map() -> None:
    text = yaml.safe_dump(rendered()["Deployment"]["spec"]["template"])
    assert not [word for word in ("helm.sh", "chart", "configMap") if word in text]


def test_adapter_is_annotated_and_in_the_environment_alike() -> None:
    template = rendered(adapter=ADAPTER)["Deployment"]["spec"]["template"]
    environment = {entry["name"]: entry.get("value") for entry in template["spec"]["containers"][0]["env"]}
    for key, value in ADAPTER.items():
        assert template["metadata"]["annotations"][f"ratchet.dev/adapter-{key}"] == value
        assert environment[f"RATCHET_ADAPTER_{key.upper()}"] == value


def test_containers_run_without_privileges() -> None:
    check_unprivileged(rendered()["Deployment"]["spec"]["template"]["spec"])


def test_what_a_release_may_not_change_is_the_golden_file() -> None:
    """Argo CD reads it after the file that a release writes: every value of the chart but the adapter's."""
    own = {key: value for key, value in CHART.values().items() if key not in RELEASED}
    if os.environ.get("REGENERATE_GOLDEN") == "1":
        comment = [line for line in FIXED.read_text().splitlines() if line.startswith("#")]
        FIXED.write_text("\n".join(comment) + "\n" + yaml.safe_dump(own, sort_keys=False, width=120))
    assert yaml.safe_load(FIXED.read_text()) == own, "run `make golden` and review the difference"


def test_deleting_the_canary_is_made_hard() -> None:
    objects = rendered()
    for kind in ("Canary", "Deployment"):
        annotations = objects[kind]["metadata"]["annotations"]
        assert annotations["argocd.argoproj.io/sync-options"] == "Prune=confirm,Delete=confirm"
    assert objects["Canary"]["spec"]["revertOnDeletion"] is True


def test_gateway_refs_are_rendered_whole_so_that_argo_cd_sees_no_difference() -> None:
    refs = rendered(gateway={"refs": [{"name": "ratchet", "namespace": "ratchet"}]})["Canary"]["spec"]["service"]
    kind = {"group": "gateway.networking.k8s.io", "kind": "Gateway"}
    assert refs["gatewayRefs"] == [{**kind, "name": "ratchet", "namespace": "ratchet"}]


def test_no_hook_whose_refusal_is_a_failed_check_asks_the_gate() -> None:
    """A refused or unreachable pre-rollout or rollout hook counts towards a rollback."""
    kinds = {hook["type"] for hook in rendered()["Canary"]["spec"]["analysis"]["webhooks"]}
    assert kinds == {
        "confirm-rollout", "rollback", "confirm-traffic-increase", "confirm-promotion", "post-rollout", "event",
    }  # fmt: skip


def test_a_failed_canary_is_told_by_the_series_that_flagger_exports_and_for_an_hour() -> None:
    rules = CHART.objects(**WATCHED)["PrometheusRule", "adapter-router"]["spec"]["groups"][0]["rules"]
    (expression,) = [rule["expr"] for rule in rules if rule["alert"] == "RatchetCanaryFailed"]
    series = 'flagger_canary_status{name="adapter-router",'
    now, before = expression.split("unless")
    for half in (now, before):
        assert half.count(series) == 2
        assert half.count("exported_namespace=") == 1
    assert before.count("offset 1h") == 2


def test_a_gate_that_hangs_does_not_outlast_an_interval() -> None:
    """Each webhook and each event is a call to it, one after another; the recordings say how many a tick makes."""
    canary = read_canary(rendered()["Canary"])
    lines = [json.loads(line) for path in RECORDINGS.glob("*.jsonl") for line in path.read_text().splitlines()]
    ticks = [line for line in lines if "steps" in line]
    most = max(sum("call" in step or "event" in step for step in turn["steps"]) for turn in ticks)
    assert most > 5
    assert most * max(hook.timeout_s for hook in canary.hooks) < canary.interval_s


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"adapter": ADAPTER | {"digest": "abc"}}, "/adapter/digest"),
        ({"adapter": ADAPTER | {"digest": "A" * 64}}, "/adapter/digest"),
        ({"adapter": ADAPTER | {"version": "v3"}}, "/adapter/version"),
        ({"adapter": ADAPTER | {"version": 3}}, "/adapter/version"),
        ({"adapter": ADAPTER | {"uri": ""}}, "/adapter/uri"),
        ({"adapter": ADAPTER | {"digest": "base"}}, "/adapter"),
        ({"adapter": ADAPTER | {"alias": "champion"}}, "alias"),
        ({"analysis": {"stepWeights": [0]}}, "/analysis/stepWeights"),
        ({"analysis": {"stepWeights": [101]}}, "/analysis/stepWeights"),
        ({"analysis": {"stepWeights": [50, 20]}}, "must be above the one before it"),
        ({"analysis": {"interval": "fast"}}, "/analysis/interval"),
        ({"image": {"tag": "latest"}}, "/image/tag"),
        ({"pool": {"url": "pool:8000"}}, "/pool/url"),
        ({"pool": {"fallback": "other"}}, "/pool/fallback"),
        ({"gate": {"url": "http://gate:8000"}}, "/gate/url"),  # Flagger asks from another namespace
        ({"credentials": {"secretName": "Not A Name"}}, "/credentials/secretName"),
        ({"votesPerMinute": 0}, "/votesPerMinute"),
        ({"prometheus": {"address": "prometheus:9090"}}, "/prometheus/address"),
        ({"alerts": {"errorPercent": 101}}, "/alerts/errorPercent"),
        ({"networkPolicy": {"from": []}}, "/networkPolicy/from"),
        ({"autoscaling": {"minReplicas": 1}}, "/autoscaling/minReplicas"),
        ({"autoscaling": {"minReplicas": 9}}, "must not be below minReplicas"),
        ({"replicas": 2}, "replicas"),
    ],
)
def test_bad_values_are_refused_by_place(values: dict[str, Any], complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        rendered(**values)


@pytest.mark.parametrize("name", ["adapter-router", "model-pool", "release-services"])
def test_notes_name_what_the_chart_makes(name: str) -> None:
    """What Helm prints after an install: each object that a line looks at is one of the chart's."""
    with helm_python.Chart.load(Chart(name).folder) as chart:
        files = chart.render({}, name=name, namespace="ratchet")
    notes = next(text for path, text in files.items() if path.endswith("NOTES.txt"))
    made = {f"{each['kind'].lower()} {each['metadata']['name']}" for each in Chart(name).render()}
    named = re.findall(r"(?:get|describe) (canary) ([\w-]+)|(deploy|svc)/([\w-]+)", notes)
    kinds = {"deploy": "deployment", "svc": "service", "canary": "canary"}
    looked_at = {f"{kinds[a or c]} {b or d}" for a, b, c, d in named}
    assert looked_at
    assert looked_at <= made
