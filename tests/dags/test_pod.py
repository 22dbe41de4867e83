"""The production form of a step: the pod that the provider would create, and what its failures become."""

import json
import os
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("airflow.sdk", reason="runs in Airflow's environment: .venv-airflow/bin/pytest tests/dags")

from airflow.sdk import DAG, RetryAction
from kubernetes.client import ApiClient
from kubernetes.client import models as k8s

from _common.failures import Broke, Lost, Refused
from _common.pod_operator import Pod, pod_failure
from _common.policies import RETRY_POLICY
from _common.resources import NEEDS
from _common.settings import Settings, read_settings
from _common.tasks import command, step
from support.pod_security import violations

SIDECAR = f"registry.example.com/alpine@sha256:{'3' * 64}"
os.environ["AIRFLOW_CONN_KUBERNETES_DEFAULT"] = json.dumps(
    {"conn_type": "kubernetes", "extra": {"xcom_sidecar_container_image": SIDECAR}}
)

COMMANDS = [name for name in NEEDS if name not in ("report", "notify")]  # those have no task here


@pytest.fixture
def settings(pods_file: Path) -> Settings:
    return read_settings({"RATCHET_EXECUTION": "kubernetes", "RATCHET_PODS": str(pods_file)})


@pytest.fixture
def train(settings: Settings) -> Pod:
    with DAG("d", schedule=None, start_date=datetime(2026, 1, 1)):
        return step("train_adapter", settings, build_datasets=step("build_datasets", settings))


CLUSTER = {
    "image_pull_secrets": ["registry", "mirror"],
    "labels": {"cost-centre": "ml-42", "kueue.x-k8s.io/queue-name": "small"},
    "annotations": {"example.com/owner": "ml"},
    "node_selector": {"pool": "steps"},
    "tolerations": [{"key": "spot", "operator": "Exists", "effect": "NoSchedule"}],
    "priority_class": "batch",
    "gpu_labels": {"kueue.x-k8s.io/queue-name": "gpus"},
    "gpu_node_selector": {"pool": "training"},
    "gpu_priority_class": "training",
    "gpu_affinity": {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [{"matchExpressions": [{"key": "gpu", "operator": "In", "values": ["l40s"]}]}]
            }
        }
    },
    "weights_claim": "model-weights",
    "schedule_timeout_s": 7200,
}


def with_pods(pods_file: Path, folder: Path, **keys: Any) -> Settings:
    path = folder / "more-pods.json"
    path.write_text(json.dumps({**json.loads(pods_file.read_text()), **keys}))
    return read_settings({"RATCHET_EXECUTION": "kubernetes", "RATCHET_PODS": str(path)})


@pytest.fixture(params=[{}, CLUSTER], ids=["bare", "full"])
def each_settings(request: pytest.FixtureRequest, pods_file: Path, tmp_path: Path) -> Settings:
    """With the required keys alone, and with all that a cluster may want."""
    return with_pods(pods_file, tmp_path, **request.param)


@pytest.fixture
def in_cluster(pods_file: Path, tmp_path: Path) -> Settings:
    return with_pods(pods_file, tmp_path, **CLUSTER)


def rendered(task: Pod) -> dict[str, Any]:
    return ApiClient().sanitize_for_serialization(task.build_pod_request_obj(dry_run=True))


def test_the_command_is_the_same_as_on_a_laptop_and_leaves_its_result_to_airflow(train: Pod) -> None:
    container = rendered(train)["spec"]["containers"][0]
    assert container["command"] == ["ratchet"]
    assert container["args"] == [
        "train_adapter",
        "--in",
        "build_datasets={{ ti.xcom_pull('build_datasets')['uri'] }}",
        "--out",
        "/airflow/xcom",
    ]
    assert {"name": "RATCHET_LAKE", "value": "s3://ratchet-lake/production"} in container["env"]
    assert train.upstream_task_ids == {"build_datasets"}


def test_its_lineage_is_named_by_bucket_and_key(train: Pod) -> None:
    """As OpenLineage's naming rules have it: https://openlineage.io/docs/spec/naming."""
    from airflow.providers.openlineage.extractors.base import DefaultExtractor

    train.arguments = ["train_adapter", "--in", "build_datasets=manifests/build_datasets/k.json"]
    train.input_digests = {"build_datasets": "d1"}
    train.result = {
        "uri": "manifests/train_adapter/k.json",
        "digest": "d2",
        "outputs": {"adapter": {"uri": "adapters/d3", "digest": "d3", "rows": None}},
    }
    found = DefaultExtractor(train).extract_on_complete(None)
    assert found is not None
    places = [(one.namespace, one.name) for one in [*found.inputs, *found.outputs]]
    assert places == [
        ("s3://ratchet-lake", "production/manifests/build_datasets/k.json"),
        ("s3://ratchet-lake", "production/manifests/train_adapter/k.json"),
        ("s3://ratchet-lake", "production/adapters/d3"),
    ]


def test_every_image_is_named_by_digest(train: Pod) -> None:
    images = [container["image"] for container in rendered(train)["spec"]["containers"]]
    assert images == [f"registry.example.com/ratchet-components-cuda@sha256:{'2' * 64}", SIDECAR]


def test_training_asks_for_a_gpu_shared_memory_and_the_node_that_has_them(train: Pod) -> None:
    spec = rendered(train)["spec"]
    resources = spec["containers"][0]["resources"]
    limits = {"memory": "64Gi", "ephemeral-storage": "60Gi", "nvidia.com/gpu": "1"}
    assert resources == {"requests": {"cpu": "8", **limits}, "limits": limits}
    assert spec["nodeSelector"] == {"ratchet.dev/gpu": "true"}
    assert spec["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    assert "/dev/shm" in [mount["mountPath"] for mount in spec["containers"][0]["volumeMounts"]]
    assert train.pool == "gpu"


def test_the_pod_outlives_the_worker_and_a_failure_says_its_last_words(train: Pod) -> None:
    assert train.deferrable
    assert train.durable
    assert train.logging_interval is None
    container = rendered(train)["spec"]["containers"][0]
    assert container["terminationMessagePolicy"] == "FallbackToLogsOnError"
    assert train.retry_policy is RETRY_POLICY


def test_only_those_who_release_may_write_to_git_and_the_cluster(settings: Settings) -> None:
    specs = {name: rendered(command(name, name, settings=settings))["spec"] for name in COMMANDS}
    trusted = {"release_adapter", "reconcile"}
    writers = {name for name, spec in specs.items() if spec["serviceAccountName"] == "ratchet-release"}
    assert writers == trusted | {"approve"}  # which writes the ledger, and no more
    for secret in ("ratchet-git", "ratchet-gate"):
        assert {name for name, spec in specs.items() if secret in str(spec["containers"][0])} == trusted


@pytest.mark.parametrize("name", COMMANDS)
def test_every_pod_is_valid_and_pod_security_restricted_admits_it(name: str, each_settings: Settings) -> None:
    """Though the connection says nothing of the sidecar's rights."""
    validate = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    made = rendered(command(name, name, has_result=name != "reconcile", settings=each_settings))
    made["metadata"]["labels"] = {key: str(value) for key, value in made["metadata"]["labels"].items()}
    validate.validate(made, "1.30", strict=True)
    assert violations(made["spec"]) == []
    assert [each["name"] for each in made["spec"]["containers"]] == (
        ["base"] if name == "reconcile" else ["base", "airflow-xcom-sidecar"]
    )
    assert all(each["securityContext"]["readOnlyRootFilesystem"] for each in made["spec"]["containers"])


@pytest.mark.parametrize("name", COMMANDS)
def test_a_steps_disk_is_asked_for_and_bounded(name: str, each_settings: Settings) -> None:
    spec = rendered(command(name, name, settings=each_settings))["spec"]
    size = NEEDS[name].ephemeral_storage
    resources = spec["containers"][0]["resources"]
    assert resources["requests"]["ephemeral-storage"] == resources["limits"]["ephemeral-storage"] == size
    folders = {mount["mountPath"]: mount["name"] for mount in spec["containers"][0]["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    assert volumes[folders["/tmp"]]["emptyDir"] == {"sizeLimit": size}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_step_has_its_whole_time_however_long_its_pod_waited(name: str, each_settings: Settings) -> None:
    """The provider counts a task's time from its start; Kubernetes counts a pod's from when a node has it."""
    task, pods = command(name, name, settings=each_settings), each_settings.pods
    assert pods is not None
    assert task.schedule_timeout_seconds == pods.schedule_timeout_s
    assert task.startup_timeout_seconds == pods.startup_timeout_s
    waits = timedelta(seconds=pods.schedule_timeout_s + pods.startup_timeout_s)
    assert task.execution_timeout == NEEDS[name].timeout + waits
    assert rendered(task)["spec"]["activeDeadlineSeconds"] >= NEEDS[name].timeout_s + pods.startup_timeout_s


def test_a_clusters_wishes_are_in_the_pod(in_cluster: Settings) -> None:
    made = rendered(command("build_datasets", "build_datasets", settings=in_cluster))
    spec = made["spec"]
    assert spec["imagePullSecrets"] == [{"name": "registry"}, {"name": "mirror"}]
    assert {
        "app.kubernetes.io/part-of": "ratchet",
        "app.kubernetes.io/component": "build_datasets",
        "cost-centre": "ml-42",
        "kueue.x-k8s.io/queue-name": "small",
    }.items() <= made["metadata"]["labels"].items()
    assert made["metadata"]["annotations"] == {"example.com/owner": "ml"}
    assert spec["nodeSelector"] == {"pool": "steps"}
    assert [one["key"] for one in spec["tolerations"]] == ["spot"]
    assert spec["priorityClassName"] == "batch"
    assert not spec.get("affinity")
    assert "weights" not in [volume["name"] for volume in spec["volumes"]]


def test_steps_with_gpus_have_a_queue_a_priority_nodes_and_weights_of_their_own(in_cluster: Settings) -> None:
    made = rendered(command("train_adapter", "train_adapter", settings=in_cluster))
    spec = made["spec"]
    assert made["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpus"
    assert made["metadata"]["labels"]["cost-centre"] == "ml-42"
    assert made["metadata"]["annotations"] == {"example.com/owner": "ml", "karpenter.sh/do-not-disrupt": "true"}
    assert spec["nodeSelector"] == {"pool": "training"}
    assert [one["key"] for one in spec["tolerations"]] == ["spot", "nvidia.com/gpu"]
    assert spec["priorityClassName"] == "training"
    assert spec["affinity"] == CLUSTER["gpu_affinity"]


def test_weights_are_kept_where_the_model_pool_keeps_them(in_cluster: Settings) -> None:
    """One claim then holds a model once: the pool's server has it as its HOME, and the Hub's client goes below that."""
    spec = rendered(command("train_adapter", "train_adapter", settings=in_cluster))["spec"]
    [volume] = [one for one in spec["volumes"] if "persistentVolumeClaim" in one]
    assert volume["persistentVolumeClaim"] == {"claimName": "model-weights"}
    mounts = {one["name"]: one["mountPath"] for one in spec["containers"][0]["volumeMounts"]}
    [home] = [one["value"] for one in spec["containers"][0]["env"] if one["name"] == "HF_HOME"]
    assert Path(home).relative_to(mounts[volume["name"]]) == Path(".cache/huggingface")  # huggingface_hub's, below HOME


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"affinity": {"nodeAfinity": {}}}, "affinity = {'nodeAfinity': {}}: of this Kubernetes knows only {}"),
        ({"tolerations": [{"key": "spot", "effects": "NoSchedule"}]}, "knows only {'key': 'spot'}"),
    ],
)
def test_a_word_that_kubernetes_does_not_know_is_an_error_and_not_dropped(
    keys: dict[str, Any], words: str, pods_file: Path, tmp_path: Path
) -> None:
    settings = with_pods(pods_file, tmp_path, **keys)
    with pytest.raises(ValueError) as caught:
        command("build_datasets", "build_datasets", settings=settings)
    assert words in str(caught.value)


def ended_pod(exit_code: int, message: str) -> k8s.V1Pod:
    terminated = k8s.V1ContainerStateTerminated(exit_code=exit_code, message=message)
    status = k8s.V1ContainerStatus(
        name="base",
        image="i",
        image_id="i",
        ready=False,
        restart_count=0,
        state=k8s.V1ContainerState(terminated=terminated),
    )
    return k8s.V1Pod(status=k8s.V1PodStatus(container_statuses=[status]))


@pytest.mark.parametrize(
    ("code", "kind", "action"),
    [(2, Refused, RetryAction.FAIL), (1, Broke, RetryAction.DEFAULT), (137, Lost, RetryAction.RETRY)],
)
def test_a_failed_pod_is_judged_by_its_exit_code(code: int, kind: type[Exception], action: RetryAction) -> None:
    found = pod_failure(ended_pod(code, "error: 7 of 9 rows"), "base", "ratchet build_datasets", "a pod failed")
    assert type(found) is kind
    assert "7 of 9 rows" in str(found)
    assert RETRY_POLICY.evaluate(found, 1, 3).action is action


@pytest.mark.parametrize("pod", [None, k8s.V1Pod(status=k8s.V1PodStatus(phase="Failed", reason="Evicted"))])
def test_a_pod_that_went_with_its_node_is_lost_and_retried(pod: k8s.V1Pod | None) -> None:
    found = pod_failure(pod, "base", "ratchet build_datasets", "Pod not found")
    assert isinstance(found, Lost)
    assert RETRY_POLICY.evaluate(found, 1, 3).action is RetryAction.RETRY
