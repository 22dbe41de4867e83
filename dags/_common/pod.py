"""A command as a pod: deferred while it runs, found again by the next try if the worker dies."""

from typing import Any

from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator
from airflow.providers.common.compat.sdk import AirflowException
from airflow.sdk import Context
from kubernetes.client import models as k8s

from _common.failures import Lost, failure
from _common.resources import TABLE, Needs
from _common.settings import Pods

CONFIG_FOLDER = TABLE["config_folder"]
STARTUP_S = 900  # a GPU node may have to be bought first, and an image of some gigabytes pulled
USER = TABLE["user_id"]


class Pod(KubernetesPodOperator):
    """A pod whose failures carry the exit code's class and the container's last words."""

    def trigger_reentry(self, context: Context, event: dict[str, Any]) -> Any:
        try:
            result = super().trigger_reentry(context, event)
        except AirflowException as error:
            raise pod_failure(self.pod, self.base_container_name, f"ratchet {self.arguments[0]}", str(error)) from error
        if self.do_xcom_push and result is None:
            raise Lost(f"the pod of {self.task_id} ended well, but was gone before its result was read")
        return result


def pod_failure(pod: k8s.V1Pod | None, container: str, command: str, words: str) -> Exception:
    """The exception for a pod that failed: by its container's exit code, if it had the time to have one."""
    statuses = (pod.status.container_statuses if pod is not None and pod.status else None) or []
    ended = next((one.state.terminated for one in statuses if one.name == container and one.state), None)
    if ended is None:
        return failure(command, None, words)
    return failure(command, ended.exit_code, ended.message or words)


def pod(task_id: str, arguments: list[str], needs: Needs, pods: Pods, *, has_result: bool, **kwargs: Any) -> Pod:
    """The operator for one command. `kwargs` go to every operator alike: pool, timeout, retries."""
    out = ["--out", "/airflow/xcom"] if has_result else []
    return Pod(
        task_id=task_id,
        name=f"ratchet-{task_id.replace('_', '-')}",
        namespace=pods.namespace,
        image=pods.images[needs.image],
        cmds=["ratchet"],
        arguments=[*arguments, *out],
        env_vars={"RATCHET_LAKE": pods.lake, "RATCHET_CONFIG": f"{CONFIG_FOLDER}/ratchet.yaml", "COLUMNS": "200"},
        env_from=[_environment(pods.secret_names[secret]) for secret in needs.secrets],
        volumes=_volumes(pods, needs),
        volume_mounts=_mounts(needs),
        container_resources=_resources(needs),
        node_selector=dict(pods.gpu_node_selector) if needs.gpus else {},
        tolerations=[k8s.V1Toleration(key="nvidia.com/gpu", operator="Exists", effect="NoSchedule")]
        if needs.gpus
        else [],
        service_account_name=pods.account_names[needs.service_account],
        security_context=k8s.V1PodSecurityContext(
            run_as_non_root=True,
            run_as_user=USER,  # for the sidecar, whose image says root
            run_as_group=USER,
            fs_group=USER,
            seccomp_profile=k8s.V1SeccompProfile(type="RuntimeDefault"),
        ),
        container_security_context=k8s.V1SecurityContext(
            allow_privilege_escalation=False,
            capabilities=k8s.V1Capabilities(drop=["ALL"]),
            read_only_root_filesystem=True,
        ),
        deferrable=True,
        durable=True,
        do_xcom_push=has_result,
        # A failure's message is the last lines of the log, since a killed command writes no message file.
        termination_message_policy="FallbackToLogsOnError",
        log_pod_spec_on_failure=False,
        # With an interval the task would give its gpu slot back at every look, while its pod goes on.
        logging_interval=None,
        on_finish_action="delete_succeeded_pod",
        startup_timeout_seconds=STARTUP_S,
        active_deadline_seconds=needs.timeout_s + STARTUP_S,
        **kwargs,
    )


def _environment(secret: str) -> k8s.V1EnvFromSource:
    """All keys of a Secret as variables; where it is absent, the service account's role has to do."""
    return k8s.V1EnvFromSource(secret_ref=k8s.V1SecretEnvSource(name=secret, optional=True))


def _resources(needs: Needs) -> k8s.V1ResourceRequirements:
    limits = {"memory": needs.memory, "ephemeral-storage": needs.ephemeral_storage}
    if needs.gpus:
        limits["nvidia.com/gpu"] = str(needs.gpus)
    return k8s.V1ResourceRequirements(requests={"cpu": needs.cpu, **limits}, limits=limits)


def _volumes(pods: Pods, needs: Needs) -> list[k8s.V1Volume]:
    config = k8s.V1Volume(name="config", config_map=k8s.V1ConfigMapVolumeSource(name=pods.config_map))
    work = k8s.V1Volume(name="work", empty_dir=k8s.V1EmptyDirVolumeSource())
    shm = k8s.V1Volume(
        name="shm", empty_dir=k8s.V1EmptyDirVolumeSource(medium="Memory", size_limit=needs.shared_memory)
    )
    return [config, work, shm] if needs.shared_memory else [config, work]


def _mounts(needs: Needs) -> list[k8s.V1VolumeMount]:
    config = k8s.V1VolumeMount(name="config", mount_path=CONFIG_FOLDER, read_only=True)
    work = k8s.V1VolumeMount(name="work", mount_path="/tmp")  # S3's cache and half-made files
    shm = k8s.V1VolumeMount(name="shm", mount_path="/dev/shm")
    return [config, work, shm] if needs.shared_memory else [config, work]
