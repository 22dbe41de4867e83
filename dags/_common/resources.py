"""What each command needs: the one table that pods, pools and timeouts come from."""

from dataclasses import dataclass
from datetime import timedelta

GPU_POOL = "gpu"


@dataclass(frozen=True, kw_only=True)
class Resources:
    """Requests are limits too: a step that is killed for memory says so at once, not on a busy day."""

    cpu: str
    memory: str
    gpus: int = 0
    timeout: timedelta

    @property
    def pool(self) -> str:
        return GPU_POOL if self.gpus else "default_pool"

    @property
    def image(self) -> str:
        return "cuda" if self.gpus else "cpu"


SMALL = Resources(cpu="1", memory="2Gi", timeout=timedelta(minutes=15))
DATA = Resources(cpu="4", memory="16Gi", timeout=timedelta(hours=1))
GPU = Resources(cpu="8", memory="64Gi", gpus=1, timeout=timedelta(hours=12))

RESOURCES = {
    "collect_triplets": DATA,
    "validate_triplets": DATA,
    "build_datasets": DATA,
    "train_adapter": GPU,
    "evaluate_adapter": GPU,
    "register_adapter": SMALL,
    # It waits out the canary; release_adapter.timeout_s in ratchet.yaml must be shorter, so that it ends first.
    "release_adapter": Resources(cpu="500m", memory="1Gi", timeout=timedelta(hours=26)),
    "reconcile": SMALL,
    "drift": DATA,
}
