"""The production form of a step: the pod that would be created, and what its failures become."""

import json
import os
from datetime import datetime
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
def test_every_pod_is_valid_and_not_root(name: str, settings: Settings) -> None:
    validate = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    made = rendered(command(name, name, has_result=name != "reconcile", settings=settings))
    made["metadata"]["labels"] = {key: str(value) for key, value in made["metadata"]["labels"].items()}
    validate.validate(made, "1.30", strict=True)
    assert made["spec"]["securityContext"]["runAsNonRoot"] is True
    assert made["spec"]["containers"][0]["securityContext"]["readOnlyRootFilesystem"] is True
    assert made["spec"]["activeDeadlineSeconds"] > NEEDS[name].timeout_s


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
