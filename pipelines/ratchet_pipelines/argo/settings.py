"""Settings that differ between clusters, images and schedule, and names that templates share."""

from dataclasses import dataclass

STEPS_TEMPLATE = "ratchet-steps"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How to compile the templates for one cluster."""

    image: str
    """The step image, `registry/name@sha256:...` in production."""
    cuda_image: str | None = None
    """The same with CUDA, for the steps that use a device; None keeps them on the CPU."""
    schedule: str = "0 2 * * *"
    """When the loop starts, in UTC."""

    @property
    def version(self) -> str:
        from ratchet import __version__

        return __version__


def argo_name(name: str) -> str:
    """Return the name with hyphens: Kubernetes allows no underscores."""
    return name.replace("_", "-")
