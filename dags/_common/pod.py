"""A command as a pod: its machine, its place in the cluster, and what it may do there."""

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from airflow.providers.cncf.kubernetes.backcompat.backwards_compat_converters import (
    convert_affinity,
    convert_toleration,
)
from kubernetes.client import ApiClient
from kubernetes.client import models as k8s

from _common.pod_operator import Pod
from _common.resources import TABLE, Needs
from _common.settings import Pods

CONFIG_FOLDER = TABLE["config_folder"]
USER = TABLE["user_id"]
WEIGHTS_FOLDER = "/weights"
# Below its HOME, where charts/model-pool keeps them too: so one claim holds a model once for training and serving.
HUB_CACHE = f"{WEIGHTS_FOLDER}/.cache/huggingface"


def pod(
    task_id: str,
    arguments: list[str],
    needs: Needs,
    pods: Pods,
    *,
    has_result: bool,
    execution_timeout: timedelta,
    **kwargs: Any,
) -> Pod:
    """The operator for one command. `kwargs` go to every operator alike: pool, retries, digests of inputs.

    `execution_timeout` is the command's own. The provider counts a task's from its start, so it gets the waits on top.
    """
    out = ["--out", "/airflow/xcom"] if has_result else []
    waits_s = pods.schedule_timeout_s + pods.startup_timeout_s
    return Pod(
        task_id=task_id,
        name=f"ratchet-{task_id.replace('_', '-')}",
        lake=pods.lake,
        image=pods.images[needs.image],
        image_pull_secrets=[k8s.V1LocalObjectReference(name=name) for name in pods.image_pull_secrets],
        cmds=["ratchet"],
        arguments=[*arguments, *out],
        env_vars=_environment(pods, needs),
        env_from=[_from_secret(pods.secret_names[secret]) for secret in needs.secrets],
        volumes=_volumes(pods, needs),
        volume_mounts=_mounts(pods, needs),
        container_resources=_resources(needs),
        service_account_name=pods.account_names[needs.service_account],
        **_place(arguments[0], pods, needs),
        **_security(),
        deferrable=True,
        durable=True,
        do_xcom_push=has_result,
        # A failure's message is the last lines of the log, since a killed command writes no message file.
        termination_message_policy="FallbackToLogsOnError",
        log_pod_spec_on_failure=False,
        # With an interval the task would give its gpu slot back at every look, while its pod goes on.
        logging_interval=None,
        on_finish_action="delete_succeeded_pod",
        schedule_timeout_seconds=pods.schedule_timeout_s,
        startup_timeout_seconds=pods.startup_timeout_s,
        execution_timeout=execution_timeout + timedelta(seconds=waits_s),
        # Kubernetes counts from when a node has taken the pod.
        active_deadline_seconds=needs.timeout_s + pods.startup_timeout_s,
        **kwargs,
    )


def _environment(pods: Pods, needs: Needs) -> dict[str, str]:
    common = {"RATCHET_LAKE": pods.lake, "RATCHET_CONFIG": f"{CONFIG_FOLDER}/ratchet.yaml", "COLUMNS": "200"}
    return {**common, "HF_HOME": HUB_CACHE} if _has_weights(pods, needs) else common


def _from_secret(secret: str) -> k8s.V1EnvFromSource:
    """All keys of a Secret as variables; where it is absent, the service account's role has to do."""
    return k8s.V1EnvFromSource(secret_ref=k8s.V1SecretEnvSource(name=secret, optional=True))


def _place(command: str, pods: Pods, needs: Needs) -> dict[str, Any]:
    """In whose name, on which nodes, before or after whom."""
    labels = {"app.kubernetes.io/part-of": "ratchet", "app.kubernetes.io/component": command, **pods.labels}
    placed: dict[str, Any] = {
        "namespace": pods.namespace,
        "labels": labels,
        "annotations": dict(pods.annotations),
        "node_selector": dict(pods.node_selector),
        "tolerations": list(pods.tolerations),
        "affinity": pods.affinity,
        "priority_class_name": pods.priority_class,
    }
    if needs.gpus:
        for key, of_gpus in (
            ("labels", pods.gpu_labels),
            ("annotations", pods.gpu_annotations),
            ("node_selector", pods.gpu_node_selector),
        ):
            placed[key] |= of_gpus
        placed["tolerations"] += pods.gpu_tolerations
        placed["affinity"] = pods.gpu_affinity or pods.affinity
        placed["priority_class_name"] = pods.gpu_priority_class or pods.priority_class
    return {
        **placed,
        "tolerations": [_made(convert_toleration, "tolerations", one) for one in placed["tolerations"]],
        "affinity": placed["affinity"] and _made(convert_affinity, "affinity", placed["affinity"]),
    }


def _made(convert: Callable[[Any], Any], key: str, given: Mapping[str, Any]) -> Any:
    """Kubernetes' own object. Raises ValueError for a field that it does not have, which its client drops silently."""
    made = convert(dict(given))
    if (kept := ApiClient().sanitize_for_serialization(made)) != given:
        raise ValueError(f"RATCHET_PODS: {key} = {given}: of this Kubernetes knows only {kept}; see its API reference")
    return made


def _security() -> dict[str, Any]:
    """What pod security `restricted` demands, of both containers."""
    container = k8s.V1SecurityContext(
        allow_privilege_escalation=False,
        capabilities=k8s.V1Capabilities(drop=["ALL"]),
        read_only_root_filesystem=True,
        run_as_non_root=True,
    )
    return {
        "security_context": k8s.V1PodSecurityContext(
            run_as_non_root=True,
            run_as_user=USER,  # for the sidecar, whose image says root
            run_as_group=USER,
            fs_group=USER,
            fs_group_change_policy="OnRootMismatch",  # else each pod visits every file of the weights
            seccomp_profile=k8s.V1SeccompProfile(type="RuntimeDefault"),
        ),
        "container_security_context": container,
        "xcom_sidecar_container_security_context": container,  # the connection may say something else, or nothing
    }


def _resources(needs: Needs) -> k8s.V1ResourceRequirements:
    limits = {"memory": needs.memory, "ephemeral-storage": needs.ephemeral_storage}
    if needs.gpus:
        limits["nvidia.com/gpu"] = str(needs.gpus)
    return k8s.V1ResourceRequirements(requests={"cpu": needs.cpu, **limits}, limits=limits)


def _has_weights(pods: Pods, needs: Needs) -> bool:
    """Only steps with GPUs load a model of the Hub."""
    return bool(needs.gpus and pods.weights_claim)


def _volumes(pods: Pods, needs: Needs) -> list[k8s.V1Volume]:
    # With a limit, a step that fills its disk is evicted for it, and not another pod of the node.
    work = k8s.V1EmptyDirVolumeSource(size_limit=needs.ephemeral_storage)
    volumes = [
        k8s.V1Volume(name="config", config_map=k8s.V1ConfigMapVolumeSource(name=pods.config_map)),
        k8s.V1Volume(name="work", empty_dir=work),
    ]
    if needs.shared_memory:
        shm = k8s.V1EmptyDirVolumeSource(medium="Memory", size_limit=needs.shared_memory)
        volumes.append(k8s.V1Volume(name="shm", empty_dir=shm))
    if _has_weights(pods, needs):
        claim = k8s.V1PersistentVolumeClaimVolumeSource(claim_name=pods.weights_claim)
        volumes.append(k8s.V1Volume(name="weights", persistent_volume_claim=claim))
    return volumes


def _mounts(pods: Pods, needs: Needs) -> list[k8s.V1VolumeMount]:
    mounts = [
        k8s.V1VolumeMount(name="config", mount_path=CONFIG_FOLDER, read_only=True),
        k8s.V1VolumeMount(name="work", mount_path="/tmp"),  # S3's cache and half-made files
    ]
    if needs.shared_memory:
        mounts.append(k8s.V1VolumeMount(name="shm", mount_path="/dev/shm"))
    if _has_weights(pods, needs):
        mounts.append(k8s.V1VolumeMount(name="weights", mount_path=WEIGHTS_FOLDER))
    return mounts
