"""What each step needs of the cluster: one table, and how it is written onto a task."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kfp import kubernetes

MINUTES_S = 60
HOURS_S = 60 * MINUTES_S
GPU = "nvidia.com/gpu"
GPU_CPU, GPU_MEMORY = "8", "64Gi"  # beside a GPU: it is idle while these are short
SHARED_MEMORY = "/dev/shm"


ENVIRONMENT_SECRET = "ratchet-env"
GIT_SECRET = "ratchet-git"
GATE_SECRET = "ratchet-gate"
S3 = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL")
MLFLOW = ("MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")
HUB = ("HF_TOKEN",)
JUDGE = ("RATCHET_JUDGE_KEY",)
GATE = ("RATCHET_GATE_TOKEN",)
GIT = ("GIT_CONFIG_COUNT", "GIT_CONFIG_KEY_0", "GIT_CONFIG_VALUE_0")


@dataclass(frozen=True, kw_only=True)
class Resources:
    """A step's needs. A retry is always safe: a step finds what it finished, and a killed one leaves nothing half."""

    cpu: str = "2"
    memory: str = "4Gi"
    uses_gpu: bool = False
    shared_memory: str = "8Gi"
    timeout_s: int = 1 * HOURS_S
    retries: int = 3
    first_backoff_s: int = 1 * MINUTES_S
    secrets: Mapping[str, tuple[str, ...]]
    """Kubernetes Secrets by name, and which of their keys become environment variables. Values are never here."""


RESOURCES: Mapping[str, Resources] = {
    "collect_triplets": Resources(memory="8Gi", secrets={ENVIRONMENT_SECRET: S3}),
    "validate_triplets": Resources(memory="8Gi", secrets={ENVIRONMENT_SECRET: S3}),
    "build_datasets": Resources(memory="16Gi", timeout_s=4 * HOURS_S, secrets={ENVIRONMENT_SECRET: S3}),
    "train_adapter": Resources(
        memory="16Gi", uses_gpu=True, timeout_s=24 * HOURS_S,
        secrets={ENVIRONMENT_SECRET: (*S3, *MLFLOW, *HUB)},
    ),
    "evaluate_adapter": Resources(
        memory="16Gi", uses_gpu=True, timeout_s=6 * HOURS_S,
        secrets={ENVIRONMENT_SECRET: (*S3, *MLFLOW, *HUB, *JUDGE)},
    ),
    "register_adapter": Resources(secrets={ENVIRONMENT_SECRET: (*S3, *MLFLOW)}),
    # Longer than release_adapter.timeout_s of the profile `gpu`, a day: the step itself gives up with a message.
    "release_adapter": Resources(
        cpu="500m", memory="2Gi", timeout_s=25 * HOURS_S,
        secrets={ENVIRONMENT_SECRET: (*S3, *MLFLOW), GIT_SECRET: GIT, GATE_SECRET: GATE},
    ),
    "notify": Resources(
        cpu="100m", memory="256Mi", timeout_s=5 * MINUTES_S, secrets={ENVIRONMENT_SECRET: ("RATCHET_NOTIFY_URL",)}
    ),
}  # fmt: skip


def place(task: Any, needs: Resources, *, has_gpu: bool) -> None:
    """Write a step's needs onto its task. Without an image for GPUs the step runs on the CPU."""
    cpu, memory = (GPU_CPU, GPU_MEMORY) if has_gpu else (needs.cpu, needs.memory)
    task.set_cpu_request(cpu).set_memory_request(memory).set_memory_limit(memory)
    task.set_retry(needs.retries, f"{needs.first_backoff_s}s", 2.0, f"{10 * needs.first_backoff_s}s")
    kubernetes.set_timeout(task, needs.timeout_s)
    for secret, keys in needs.secrets.items():  # optional: a service account with a role needs no keys
        kubernetes.use_secret_as_env(task, secret, {key: key for key in keys}, optional=True)
    if has_gpu:
        task.set_accelerator_type(GPU).set_accelerator_limit(1)
        kubernetes.add_toleration(task, key=GPU, operator="Exists", effect="NoSchedule")
        # A container has 64 MiB of /dev/shm, which data loaders' workers overrun.
        kubernetes.empty_dir_mount(task, "shared-memory", SHARED_MEMORY, "Memory", needs.shared_memory)
