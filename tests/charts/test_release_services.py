"""The chart of gate and reconciler, rendered by Helm itself and held against the schema of Kubernetes."""

from pathlib import Path
from typing import Any

import pytest

from ratchet.config import Config, load_config
from ratchet.errors import UserError
from ratchet.needs import CONFIG_MAP, RELEASE_ACCOUNT
from ratchet.release.gate.tokens import VARIABLE
from support.helm_chart import Chart, Objects, check_unprivileged, check_valid

CHART = Chart("release-services")
rendered = CHART.objects


def pod(name: str, objects: Objects | None = None) -> dict[str, Any]:
    spec: dict[str, Any] = (objects or rendered())["Deployment", name]["spec"]["template"]["spec"]
    return spec


def settings(tmp_path: Path, objects: Objects) -> Config:
    path = tmp_path / "ratchet.yaml"
    path.write_text(objects["ConfigMap", CONFIG_MAP]["data"]["ratchet.yaml"])
    return load_config(path)


def test_default_rendering_is_the_golden_file() -> None:
    CHART.check_golden()


WATCHED = {"podMonitor": {"enabled": True, "labels": {"release": "prometheus"}}, "alerts": {"enabled": True}}


DUELS = {"duels": {"enabled": True, "poolUrl": "http://pool:8000"}}


@pytest.mark.parametrize("values", [{}, WATCHED, DUELS], ids=["default", "watched", "duels"])
def test_every_object_is_valid_kubernetes(values: dict[str, Any]) -> None:
    check_valid(CHART.render(**values))


def test_prometheus_reads_gate_and_reconciler_with_the_token_that_the_gate_wants() -> None:
    objects = rendered(**WATCHED)
    for name in ("gate", "reconciler"):
        monitor = objects["PodMonitor", name]
        assert monitor["metadata"]["labels"] == {"release": "prometheus"}
        [endpoint] = monitor["spec"]["podMetricsEndpoints"]
        assert endpoint["port"] in {port["name"] for port in pod(name, objects)["containers"][0]["ports"]}
        assert monitor["spec"]["selector"] == objects["Deployment", name]["spec"]["selector"]
        token = endpoint.get("authorization", {}).get("credentials")
        assert token == ({"name": "ratchet-gate", "key": VARIABLE} if name == "gate" else None)


def test_every_service_is_probed() -> None:
    for name in ("gate", "reconciler"):
        assert pod(name)["containers"][0]["livenessProbe"]["httpGet"]["path"] == "/healthz"


def test_the_config_map_holds_a_whole_valid_ratchet_yaml(tmp_path: Path) -> None:
    objects = rendered(config="release_adapter:\n  timeout_s: 86400 # a day\n", lake="s3://lake/prefix")
    assert settings(tmp_path, objects).release_adapter.timeout_s == 86_400
    assert objects["ConfigMap", CONFIG_MAP]["data"]["lake"] == "s3://lake/prefix"


def test_the_gate_is_where_flagger_and_reconciler_look_for_it(tmp_path: Path) -> None:
    objects = rendered()
    gate = objects["Service", "gate"]
    url = f"http://gate.ratchet.svc:{gate['spec']['ports'][0]['port']}"
    assert gate["metadata"]["namespace"] == "ratchet"
    assert settings(tmp_path, objects).release_adapter.gate_url == url
    canary = Chart("adapter-router").kinds()["Canary"]
    assert {hook["url"].rpartition("/hooks/")[0] for hook in canary["spec"]["analysis"]["webhooks"]} == {url}


def test_commands_are_ratchets_own() -> None:
    assert pod("gate")["containers"][0]["command"] == ["ratchet", "serve-gate", "--host=0.0.0.0", "--port=8000"]
    assert pod("reconciler")["containers"][0]["command"] == [
        "ratchet",
        "reconcile",
        "--host=0.0.0.0",
        "--health-port=8002",
    ]


def test_duels_are_held_by_an_account_of_their_own_and_only_if_asked_for() -> None:
    assert ("Deployment", "duels") not in rendered()
    found = pod("duels", rendered(**DUELS))
    assert found["containers"][0]["command"] == ["ratchet", "hold-duels", "--pool-url=http://pool:8000"]
    assert found["serviceAccountName"] == "ratchet-duels"
    check_unprivileged(found)


def test_only_the_reconciler_has_the_right_to_push() -> None:
    secrets = {
        name: [source["secretRef"]["name"] for source in pod(name)["containers"][0]["envFrom"]]
        for name in ("gate", "reconciler")
    }
    assert secrets == {
        "gate": ["ratchet-env", "ratchet-gate"],
        "reconciler": ["ratchet-env", "ratchet-gate", "ratchet-git"],
    }


def test_the_cluster_may_be_looked_at_and_only_the_canary_of_the_settings() -> None:
    objects = rendered(config="release_adapter: {canary: chat}\n")
    rules = objects["Role", "canary-reader"]["rules"]
    assert {verb for rule in rules for verb in rule["verbs"]} == {"get"}
    assert {name for rule in rules for name in rule["resourceNames"]} == {"chat", "chat-primary"}
    subjects = {subject["name"] for subject in objects["RoleBinding", "canary-reader"]["subjects"]}
    assert subjects == {"ratchet-gate", RELEASE_ACCOUNT}
    assert pod("reconciler")["serviceAccountName"] == RELEASE_ACCOUNT, "the release step runs as the reconciler does"
    assert not [kind for kind, _ in objects if kind.startswith("Cluster")]


def test_new_settings_start_the_services_anew() -> None:
    def template(**values: Any) -> Any:
        return rendered(**values)["Deployment", "gate"]["spec"]["template"]

    assert template(lake="s3://other") != template()
    assert template(secrets={"git": "other"}) == template()


def test_only_flagger_prometheus_and_our_own_reach_the_gate() -> None:
    policy = rendered(gate={"allowedNamespaces": ["flux"]})["NetworkPolicy", "gate"]["spec"]
    assert policy["podSelector"] == rendered()["Deployment", "gate"]["spec"]["selector"]
    [rule] = policy["ingress"]
    names = [each["namespaceSelector"]["matchLabels"] for each in rule["from"] if "namespaceSelector" in each]
    assert names == [{"kubernetes.io/metadata.name": "flux"}]
    assert rule["from"][0] == {"podSelector": {}}


def test_containers_run_without_privileges() -> None:
    for name in ("gate", "reconciler"):
        check_unprivileged(pod(name))


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"image": {"tag": "latest"}}, "/image/tag"),
        ({"lake": "/mnt/lake"}, "/lake"),
        ({"config": "seed: 0"}, "/config"),
        ({"secrets": {"env": "Not A Name"}}, "/secrets/env"),
        ({"gate": {"port": 80}}, "/gate/port"),
        ({"gate": {"replicas": 2}}, "replicas"),
    ],
)
def test_bad_values_are_refused_by_place(values: dict[str, Any], complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        rendered(**values)


def test_prometheus_alone_asks_the_reconciler_and_nobody_the_duels() -> None:
    objects = rendered(reconciler={"allowedNamespaces": ["watch"]}, duels={"enabled": True})
    [rule] = objects["NetworkPolicy", "reconciler"]["spec"]["ingress"]
    assert rule["from"] == [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "watch"}}}]
    assert rule["ports"] == [{"port": "http"}]
    shut = rendered(reconciler={"allowedNamespaces": []})["NetworkPolicy", "reconciler"]["spec"]
    for spec in (shut, objects["NetworkPolicy", "duels"]["spec"]):
        assert spec["policyTypes"] == ["Ingress"]
        assert "ingress" not in spec
    for name in ("reconciler", "duels"):
        labels = objects["Deployment", name]["spec"]["template"]["metadata"]["labels"]
        assert objects["NetworkPolicy", name]["spec"]["podSelector"]["matchLabels"].items() <= labels.items()


def test_only_who_looks_at_the_cluster_holds_a_token_for_it() -> None:
    objects = rendered(duels={"enabled": True})
    assert pod("duels", objects)["automountServiceAccountToken"] is False
    assert {"gate", "reconciler"} == {
        name
        for kind, name in objects
        if kind == "Deployment" and pod(name, objects).get("automountServiceAccountToken", True)
    }


def test_every_pod_asks_for_the_disk_that_it_may_fill() -> None:
    objects = rendered(duels={"enabled": True})
    for name in ("gate", "reconciler", "duels"):
        limits = [volume["emptyDir"]["sizeLimit"] for volume in pod(name, objects)["volumes"] if "emptyDir" in volume]
        asked = pod(name, objects)["containers"][0]["resources"]["requests"]["ephemeral-storage"]
        assert limits == [asked]
