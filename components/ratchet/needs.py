"""What each command needs of a machine and of the cluster: the one table that every orchestrator reads.

Kubeflow and Argo read it from the steps; Airflow, whose environment cannot import this package, reads the JSON that is
generated from it (`dags/_common/needs.json`).
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self

MINUTE_S = 60
HOUR_S = 60 * MINUTE_S

# Names that pods share with the charts and manifests of the cluster. Secrets are optional: a service account with a
# cloud role needs no keys.
ENVIRONMENT_SECRET = "ratchet-env"  # what a role does not give, such as MLFLOW_TRACKING_TOKEN
GIT_SECRET = "ratchet-git"  # the right to push, as Git's GIT_CONFIG_* variables
GATE_SECRET = "ratchet-gate"  # RATCHET_GATE_TOKEN
STEP_ACCOUNT = "ratchet-steps"
RELEASE_ACCOUNT = "ratchet-release"  # the only one that may push to Git and read the canary
CONFIG_MAP = "ratchet-config"  # made by the chart release-services: keys `ratchet.yaml` and `lake`
CONFIG_FOLDER = "/etc/ratchet"
USER_ID = 10001  # of the images

S3 = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL")
MLFLOW = ("MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")
HUB = ("HF_TOKEN",)
JUDGE = ("RATCHET_JUDGE_KEY",)
GATE = ("RATCHET_GATE_TOKEN",)
GIT = ("GIT_CONFIG_COUNT", "GIT_CONFIG_KEY_0", "GIT_CONFIG_VALUE_0", "RATCHET_ARGOCD_TOKEN")


@dataclass(frozen=True, kw_only=True)
class Needs:
    """Amounts in Kubernetes' notation. The requests of memory and disk are limits too.

    So a step that outgrows its memory is killed on the first day, not on the day on which its node is full. CPU has no
    limit: a throttled step is only slower.
    """

    cpu: str = "1"
    memory: str = "2Gi"
    ephemeral_storage: str = "2Gi"
    """Disk under /tmp: files copied from the lake, and files being written."""
    timeout_s: int = HOUR_S
    """Ends a step that hangs: several times its longest expected duration."""
    gpus: int = 0
    """GPUs where a CUDA image is configured; without one, `without_gpu` applies."""
    shared_memory: str | None = None
    """Size of /dev/shm. A container has 64 MiB, which data loaders' workers overrun."""
    cpu_only: tuple[str, str] | None = None
    """(cpu, memory) where no CUDA image is configured; None: the same as with GPUs."""
    secrets: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: {ENVIRONMENT_SECRET: S3})
    """Names of Secrets, each with the keys that become environment variables. Never values."""
    service_account: str = STEP_ACCOUNT

    def without_gpu(self) -> Self:
        """The same on a machine without GPUs."""
        cpu, memory = self.cpu_only or (self.cpu, self.memory)
        return replace(self, cpu=cpu, memory=memory, gpus=0, shared_memory=None)

    def to_json(self) -> dict[str, Any]:
        """The needs as JSON values, in the order of the fields."""
        return {**asdict(self), "secrets": {name: list(keys) for name, keys in self.secrets.items()}}
