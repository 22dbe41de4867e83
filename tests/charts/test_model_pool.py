"""The model pool's chart, rendered by Helm itself and held against the schema of Kubernetes."""

import os
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from ratchet.config import Lora
from ratchet.errors import UserError
from ratchet.rehearsal.argo import render

CHARTS = Path(__file__).resolve().parents[2] / "charts"
CHART = CHARTS / "model-pool"
GOLDEN = Path(__file__).parent / "model-pool.golden.yaml"
KUBERNETES = "1.31"


def rendered(**values: Any) -> dict[str, dict[str, Any]]:
    return {manifest["kind"]: manifest for manifest in render(CHART, values, "ratchet")}


def pod(**values: Any) -> dict[str, Any]:
    spec: dict[str, Any] = rendered(**values)["Deployment"]["spec"]["template"]["spec"]
    return spec


def test_default_rendering_is_the_golden_file() -> None:
    made = render(CHART, {}, "ratchet")
    if os.environ.get("REGENERATE_GOLDEN") == "1":
        GOLDEN.write_text(yaml.safe_dump_all(made, sort_keys=True, width=120))
    golden = list(yaml.safe_load_all(GOLDEN.read_text()))
    assert made == golden, "run once with REGENERATE_GOLDEN=1 and review the difference"


@pytest.mark.parametrize("cache", [{}, {"claimName": "weights"}], ids=["folder", "claim"])
def test_every_object_is_valid_kubernetes(cache: dict[str, str]) -> None:
    objects = rendered(cache=cache)
    assert set(objects) == {"Deployment", "Service", "NetworkPolicy"}
    for manifest in objects.values():
        kubernetes_validate.validate(manifest, KUBERNETES, strict=True)


def test_vllm_takes_adapters_of_every_rank_up_to_the_limit() -> None:
    container = pod(lora={"maxAdapters": 3, "maxRank": 128})["containers"][0]
    assert {"--enable-lora", "--max-loras=3", "--max-lora-rank=128"} <= set(container["args"])
    assert {"name": "VLLM_ALLOW_RUNTIME_LORA_UPDATING", "value": "True"} in container["env"]
    largest_by_default = yaml.safe_load((CHART / "values.yaml").read_text())["lora"]["maxRank"]
    assert Lora().r <= largest_by_default


def test_the_base_model_is_pinned_by_revision() -> None:
    args = pod(model={"id": "org/model", "revision": "c0ffee"})["containers"][0]["args"]
    assert args[0] == "org/model"
    assert {"--revision=c0ffee", "--tokenizer-revision=c0ffee"} <= set(args)


def test_a_pod_has_as_long_to_start_as_its_model_takes_to_load() -> None:
    probe = pod(loadSeconds=95)["containers"][0]["startupProbe"]
    assert probe["failureThreshold"] * probe["periodSeconds"] == 100
    assert rendered(loadSeconds=95)["Deployment"]["spec"]["progressDeadlineSeconds"] > 100


def test_gpus_are_requested_beside_what_values_ask_for() -> None:
    resources = pod(gpus=2, resources={"requests": {"cpu": "8"}, "limits": {}})["containers"][0]["resources"]
    assert resources["requests"]["nvidia.com/gpu"] == resources["limits"]["nvidia.com/gpu"] == "2"
    assert resources["requests"]["cpu"] == "8"
    assert "--tensor-parallel-size=2" in pod(gpus=2)["containers"][0]["args"]


def test_only_routers_reach_the_door_that_loads_adapters() -> None:
    policy = rendered()["NetworkPolicy"]["spec"]
    router = yaml.safe_load((CHARTS / "adapter-router" / "values.yaml").read_text())["name"]
    (rule,) = policy["ingress"]
    assert rule["from"][0]["podSelector"]["matchExpressions"][0]["values"] == [router, f"{router}-primary"]


def test_routers_find_the_pool_under_its_name() -> None:
    url = yaml.safe_load((CHARTS / "adapter-router" / "values.yaml").read_text())["pool"]["url"]
    service = rendered()["Service"]
    assert url == f"http://{service['metadata']['name']}:{service['spec']['ports'][0]['port']}"


def test_container_runs_without_privileges_and_writes_to_volumes_only() -> None:
    spec = pod()
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["automountServiceAccountToken"] is False
    context = spec["containers"][0]["securityContext"]
    assert context["readOnlyRootFilesystem"] is True
    assert context["allowPrivilegeEscalation"] is False
    assert context["capabilities"] == {"drop": ["ALL"]}


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"image": {"tag": "latest"}}, "/image/tag"),
        ({"lora": {"maxRank": 24}}, "/lora/maxRank"),
        ({"lora": {"maxAdapters": 1}}, "/lora/maxAdapters"),
        ({"gpus": 0}, "/gpus"),
        ({"clients": []}, "/clients"),
        ({"extraArgs": ["max-num-seqs=4"]}, "/extraArgs"),
        ({"replica": 2}, "replica"),
    ],
)
def test_bad_values_are_refused_by_place(values: dict[str, Any], complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        rendered(**values)
