"""Settings that differ between clusters, images and schedule, and names that templates share."""

from dataclasses import dataclass
from typing import Literal

STEPS_TEMPLATE = "ratchet-steps"
SCHEDULER = "argo"
Approval = Literal["none", "person"]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How to compile the templates for one cluster."""

    image: str
    """The step image, `registry/name@sha256:...` in production."""
    cuda_image: str | None = None
    """The same with CUDA, for the steps that use a device; None keeps them on the CPU."""
    schedule: str = "0 2 * * *"
    """When the loop starts, in UTC."""
    is_scheduled: bool = False
    """Whether the schedule starts anything. Off by default: Airflow is the scheduler, and a lake has one."""
    approval: Approval = "person"
    """Whether the loop asks a person before a release. `release_adapter.approval` in ratchet.yaml enforces it."""

    @property
    def version(self) -> str:
        from ratchet import __version__

        return __version__


def argo_name(name: str) -> str:
    """Return the name with hyphens: Kubernetes allows no underscores."""
    return name.replace("_", "-")
