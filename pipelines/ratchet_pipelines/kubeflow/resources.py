"""Write a step's needs onto its Kubeflow task."""

from typing import Any

from kfp import kubernetes

from ratchet.needs import MINUTE_S, Needs

GPU = "nvidia.com/gpu"
SHARED_MEMORY = "/dev/shm"
# A retry is always safe: a step finds what it has finished, and a killed one leaves nothing half-written.
RETRIES = 3
BACKOFF_S, MAX_BACKOFF_S = 1 * MINUTE_S, 10 * MINUTE_S


def place(task: Any, needs: Needs) -> None:
    """Ask for cpu, memory, disk and GPUs, and set timeout, retries and secrets."""
    task.set_cpu_request(needs.cpu).set_memory_request(needs.memory).set_memory_limit(needs.memory)
    task.set_retry(RETRIES, f"{BACKOFF_S}s", 2.0, f"{MAX_BACKOFF_S}s")
    kubernetes.set_timeout(task, needs.timeout_s)
    for secret, keys in needs.secrets.items():
        kubernetes.use_secret_as_env(task, secret, {key: key for key in keys}, optional=True)
    # kfp has no request for ephemeral storage; the size of /tmp, where steps write, bounds it.
    kubernetes.empty_dir_mount(task, "work", "/tmp", size_limit=needs.ephemeral_storage)
    if needs.gpus:
        task.set_accelerator_type(GPU).set_accelerator_limit(needs.gpus)
        kubernetes.add_toleration(task, key=GPU, operator="Exists", effect="NoSchedule")
    if needs.shared_memory:
        kubernetes.empty_dir_mount(task, "shared-memory", SHARED_MEMORY, "Memory", needs.shared_memory)
