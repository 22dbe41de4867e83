"""What each step needs of the cluster: one table, and how it is written onto a task."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kfp import kubernetes

MINUTES_S = 60
HOURS_S = 60 * MINUTES_S
GPU = "nvidia.com/gpu"
SHARED_MEMORY = "/dev/shm"


@dataclass(frozen=True, kw_only=True)
class Resources:
    """A step's needs. A retry is always safe: a step finds what it finished, and a killed one leaves nothing half."""

    cpu: str = "2"
    memory: str = "4Gi"
    uses_gpu: bool = False
    shared_memory: str = ""
    timeout_s: int = 1 * HOURS_S
    retries: int = 3
    first_backoff_s: int = 1 * MINUTES_S
    secrets: tuple[str, ...] = ()


RESOURCES: Mapping[str, Resources] = {
    "collect_triplets": Resources(memory="8Gi", secrets=("ratchet-s3",)),
    "validate_triplets": Resources(memory="8Gi", secrets=("ratchet-s3",)),
    "build_datasets": Resources(memory="16Gi", timeout_s=4 * HOURS_S, secrets=("ratchet-s3",)),
    "train_adapter": Resources(
        cpu="8", memory="32Gi", uses_gpu=True, shared_memory="8Gi", timeout_s=24 * HOURS_S,
        secrets=("ratchet-s3", "ratchet-mlflow", "ratchet-hub"),
    ),
    "evaluate_adapter": Resources(
        cpu="8", memory="32Gi", uses_gpu=True, shared_memory="8Gi", timeout_s=6 * HOURS_S,
        secrets=("ratchet-s3", "ratchet-mlflow", "ratchet-hub"),
    ),
    "register_adapter": Resources(secrets=("ratchet-s3", "ratchet-mlflow")),
    # Longer than release_adapter.timeout_s of the profile `gpu`, a day: the step itself gives up with a message.
    "release_adapter": Resources(
        cpu="500m", memory="2Gi", timeout_s=25 * HOURS_S, secrets=("ratchet-s3", "ratchet-mlflow", "ratchet-git")
    ),
    "notify": Resources(cpu="100m", memory="256Mi", timeout_s=5 * MINUTES_S, secrets=("ratchet-notify",)),
}  # fmt: skip

SECRETS: Mapping[str, tuple[str, ...]] = {
    "ratchet-s3": ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL"),
    "ratchet-mlflow": ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"),
    "ratchet-hub": ("HF_TOKEN",),
    "ratchet-git": ("GIT_CONFIG_COUNT", "GIT_CONFIG_KEY_0", "GIT_CONFIG_VALUE_0"),
    "ratchet-notify": ("RATCHET_NOTIFY_URL",),
}
"""Kubernetes Secrets by name, and their keys, which are environment variables too. Values are never written here."""


def place(task: Any, needs: Resources, *, has_gpu: bool) -> None:
    """Write a step's needs onto its task. Without an image for GPUs the step runs on the CPU."""
    task.set_cpu_request(needs.cpu).set_memory_request(needs.memory).set_memory_limit(needs.memory)
    task.set_retry(needs.retries, f"{needs.first_backoff_s}s", 2.0, f"{10 * needs.first_backoff_s}s")
    kubernetes.set_timeout(task, needs.timeout_s)
    for name in needs.secrets:  # optional: a service account with a role needs no keys
        kubernetes.use_secret_as_env(task, name, {key: key for key in SECRETS[name]}, optional=True)
    if has_gpu:
        task.set_accelerator_type(GPU).set_accelerator_limit(1)
        kubernetes.add_toleration(task, key=GPU, operator="Exists", effect="NoSchedule")
    if has_gpu and needs.shared_memory:
        # A container has 64 MiB of /dev/shm, which CUDA's workers overrun.
        kubernetes.empty_dir_mount(task, "shared-memory", SHARED_MEMORY, "Memory", needs.shared_memory)
