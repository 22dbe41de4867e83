"""The chart, rendered by Helm itself and held against the schemas of Kubernetes, Flagger and Prometheus operator."""

import os
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

import crds
from ratchet.errors import UserError
from ratchet.rehearsal.analysis import read_canary
from ratchet.rehearsal.argo import OVERLAY, merge, render

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "adapter-router"
GOLDEN = Path(__file__).parent / "adapter-router.golden.yaml"
KUBERNETES = "1.31"
ADAPTER = {"name": "adapter", "version": "3", "uri": "s3://lake/adapters/x", "digest": "a" * 64}


def rendered(**values: Any) -> dict[str, dict[str, Any]]:
    return {manifest["kind"]: manifest for manifest in render(CHART, values, "ratchet")}


def test_default_rendering_is_the_golden_file() -> None:
    text = yaml.safe_dump_all(render(CHART, {}, "ratchet"), sort_keys=True, width=120)
    if "REGENERATE_GOLDEN" in os.environ:
        GOLDEN.write_text(text)
    assert text == GOLDEN.read_text(), "run once with REGENERATE_GOLDEN=1 and review the difference"


def test_deployment_is_valid_kubernetes() -> None:
    kubernetes_validate.validate(rendered(adapter=ADAPTER)["Deployment"], KUBERNETES, strict=True)


@pytest.mark.parametrize("overlay", [{}, yaml.safe_load((CHART / OVERLAY).read_text())], ids=["default", "local"])
def test_canary_is_valid_by_flaggers_schema(overlay: dict[str, Any]) -> None:
    canary = rendered(**merge(overlay, {"adapter": ADAPTER}))["Canary"]
    crds.check(canary, "flagger")
    assert read_canary(canary).step_weights, "the rehearsal reads what the cluster would"


def test_pod_monitor_is_valid_by_its_schema() -> None:
    crds.check(rendered(podMonitor={"enabled": True})["PodMonitor"], "prometheus-operator")


def test_schema_check_refuses_unknown_fields() -> None:
    canary = rendered()["Canary"]
    canary["spec"]["analysis"]["stepWeigths"] = [10]
    with pytest.raises(jsonschema.ValidationError, match="stepWeigths"):
        crds.check(canary, "flagger")


def test_flagger_owns_replicas_services_and_routes() -> None:
    manifests = rendered()
    assert set(manifests) == {"Deployment", "Canary"}
    assert "replicas" not in manifests["Deployment"]["spec"]


def test_pod_template_follows_the_adapter_and_the_nonce_and_nothing_else() -> None:
    before = rendered(adapter=ADAPTER)["Deployment"]["spec"]["template"]
    unrelated = {
        "gate": {"url": "http://other:1"},
        "analysis": {"interval": "5m", "threshold": 9, "stepWeights": [1]},
        "gateway": {"hosts": ["other.example.com"]},
        "skipAnalysis": True,
        "podMonitor": {"enabled": True},
        "progressDeadlineSeconds": 5,
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


def test_container_runs_without_privileges() -> None:
    pod = rendered()["Deployment"]["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    context = pod["containers"][0]["securityContext"]
    assert context["readOnlyRootFilesystem"] is True
    assert context["allowPrivilegeEscalation"] is False
    assert context["capabilities"] == {"drop": ["ALL"]}


def test_deleting_the_canary_is_made_hard() -> None:
    canary = rendered()["Canary"]
    assert canary["metadata"]["annotations"]["argocd.argoproj.io/sync-options"] == "Prune=confirm"
    assert canary["spec"]["revertOnDeletion"] is True


def test_hook_timeouts_fit_into_an_interval() -> None:
    canary = read_canary(rendered()["Canary"])
    assert sum(hook.timeout_s for hook in canary.hooks) < canary.interval_s


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
        ({"replicas": 2}, "replicas"),
    ],
)
def test_bad_values_are_refused_by_place(values: dict[str, Any], complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        rendered(**values)
