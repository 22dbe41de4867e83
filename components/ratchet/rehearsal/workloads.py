"""Deployments as Flagger treats them: the primary made from the target, configs that it tracks, readiness. Pure."""

import copy
from collections.abc import Iterator
from typing import Any

from ratchet.digest import digest_json
from ratchet.rehearsal.flagger import Readiness

Object = dict[str, Any]
COPIED = ("progressDeadlineSeconds", "minReadySeconds", "revisionHistoryLimit", "strategy")
PRIMARY = "-primary"
LABEL = "app"  # the first of Flagger's selector labels


def spec_hash(template: Object) -> str:
    """Return a stable hash of a pod template. Flagger computes another one; only equality matters."""
    return digest_json(template)[:10]


def checksum(config: Object) -> str:
    """Return the checksum of the data of a ConfigMap or Secret."""
    return digest_json(config.get("data", {}))[:16]


def config_refs(template: Object) -> dict[tuple[str, str], bool]:
    """Return kind and name of every ConfigMap and Secret that a pod template names, and whether it must exist."""
    return {(kind, ref[key]): not ref.get("optional", False) for kind, key, ref in _refs(template)}


def primary_template(target: Object, tracked: set[tuple[str, str]], rollout: str) -> Object:
    """Return the primary's pod template: the target's under the primary's label, with the primary's own configs.

    `rollout` is Flagger's own annotation, by which it forces a rolling update.
    """
    made: Object = copy.deepcopy(target["spec"]["template"])
    name = target["metadata"]["name"]
    made["metadata"].setdefault("labels", {})[LABEL] = name + PRIMARY
    made["metadata"].setdefault("annotations", {})["flagger-id"] = rollout
    for kind, key, ref in _refs(made):
        if (kind, ref[key]) in tracked:
            ref[key] += PRIMARY
    for constraint in made["spec"].get("topologySpreadConstraints", []):
        labels = constraint.get("labelSelector", {}).get("matchLabels", {})
        if labels.get(LABEL) == name:
            labels[LABEL] = name + PRIMARY
    return made


def primary_of(target: Object, template: Object) -> Object:
    """Return a primary Deployment made from the target."""
    name = target["metadata"]["name"] + PRIMARY
    spec = {key: target["spec"][key] for key in COPIED if key in target["spec"]}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "labels": {LABEL: name}},
        "spec": spec
        | {
            "replicas": target["spec"]["replicas"] or 1,
            "selector": {"matchLabels": {LABEL: name}},
            "template": template,
        },
    }


def readiness(deployment: Object) -> Readiness:
    """Return a Deployment's readiness by Flagger's rule: rolled out, old pods gone, available; or past its deadline.

    A Deployment with no replicas is ready.
    """
    status, wanted = deployment["status"], deployment["spec"]["replicas"]
    if status.get("observedGeneration", 0) < deployment["metadata"]["generation"]:
        return Readiness.WAITING
    if any(condition.get("reason") == "ProgressDeadlineExceeded" for condition in status.get("conditions", ())):
        return Readiness.STUCK
    total, updated, available = (status.get(key, 0) for key in ("replicas", "updatedReplicas", "availableReplicas"))
    is_rolled_out = updated >= wanted and total <= updated and available >= updated
    return Readiness.READY if is_rolled_out else Readiness.WAITING


def kubelet_status(deployment: Object, now: Readiness) -> Object:
    """Return the status that a cluster's controllers write once its pods are so. Without pods nothing is late."""
    wanted = deployment["spec"]["replicas"]
    available = wanted if now is Readiness.READY else 0
    is_late = now is Readiness.STUCK and wanted > 0
    reason = "ProgressDeadlineExceeded" if is_late else "ReplicaSetUpdated"
    return {
        "observedGeneration": deployment["metadata"]["generation"],
        "replicas": wanted,
        "updatedReplicas": wanted,
        "readyReplicas": available,
        "availableReplicas": available,
        "conditions": [{"type": "Progressing", "status": str(not is_late), "reason": reason}],
    }


def _refs(template: Object) -> Iterator[tuple[str, str, Object]]:
    """Yield kind, key of the name, and reference of every ConfigMap and Secret in a pod template."""
    spec = template["spec"]
    for volume in spec.get("volumes", []):
        for source in (volume, *volume.get("projected", {}).get("sources", [])):
            yield from _named(source, ("configMap", "secret"))
    for container in (*spec.get("containers", []), *spec.get("initContainers", [])):
        for variable in container.get("env", []):
            yield from _named(variable.get("valueFrom", {}), ("configMapKeyRef", "secretKeyRef"))
        for origin in container.get("envFrom", []):
            yield from _named(origin, ("configMapRef", "secretRef"))


def _named(source: Object, keys: tuple[str, str]) -> Iterator[tuple[str, str, Object]]:
    for kind, key in zip(("ConfigMap", "Secret"), keys, strict=True):
        if key in source:
            yield kind, "secretName" if "secretName" in source[key] else "name", source[key]
