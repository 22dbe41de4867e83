"""Kubernetes' pod-security standard `restricted`, as its documentation lists it, for pods that were never admitted.

https://kubernetes.io/docs/concepts/security/pod-security-standards/, of Kubernetes 1.31.
"""

from collections.abc import Iterator
from typing import Any

Plain = dict[str, Any]
VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}
PROFILES = {"RuntimeDefault", "Localhost"}


def violations(spec: Plain) -> list[str]:
    """What of a pod's spec `restricted` refuses, in words; empty if the pod may run."""
    pod = spec.get("securityContext") or {}
    containers = [*(spec.get("initContainers") or ()), *spec["containers"]]
    of_containers = (f"{each['name']}: {what}" for each in containers for what in _of_container(each, pod))
    return [*_of_pod(spec, pod), *of_containers]


def _of_pod(spec: Plain, context: Plain) -> Iterator[str]:
    for key in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(key):
            yield key
    for volume in spec.get("volumes") or ():
        if kinds := set(volume) - {"name"} - VOLUMES:
            yield f"volume of kind {', '.join(sorted(kinds))}"
    if context.get("runAsUser") == 0:
        yield "runs as root"


def _of_container(container: Plain, pod: Plain) -> Iterator[str]:
    own = container.get("securityContext") or {}
    if own.get("privileged"):
        yield "privileged"
    if own.get("allowPrivilegeEscalation") is not False:
        yield "may gain privileges"
    if own.get("runAsNonRoot", pod.get("runAsNonRoot")) is not True:
        yield "runAsNonRoot is not said"
    if own.get("runAsUser") == 0:
        yield "runs as root"
    if (own.get("seccompProfile") or pod.get("seccompProfile") or {}).get("type") not in PROFILES:
        yield "no seccomp profile"
    capabilities = own.get("capabilities") or {}
    if "ALL" not in capabilities.get("drop", ()):
        yield "keeps capabilities"
    if set(capabilities.get("add") or ()) - {"NET_BIND_SERVICE"}:
        yield "adds capabilities"
    if any(port.get("hostPort") for port in container.get("ports") or ()):
        yield "a port of the host"
