"""The rehearsal cluster's state, and the part of the Kubernetes REST API that reads it."""

import copy
import json
import threading
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.responses import JSONResponse

from ratchet.digest import digest_json

Object = dict[str, Any]
KINDS = {
    ("flagger.app", "v1beta1", "canaries"): "Canary",
    ("apps", "v1", "deployments"): "Deployment",
    ("gateway.networking.k8s.io", "v1", "httproutes"): "HTTPRoute",
}


class Cluster:
    """Objects by kind and name, endpoints by Deployment, and a log. Thread-safe; reads are copies.

    With a `state` file the objects survive a restart of the process, as they do in etcd.
    """

    def __init__(self, namespace: str, state: Path | None = None) -> None:
        self.namespace, self.state = namespace, state
        self._objects: dict[tuple[str, str], Object] = _load(state)
        self._endpoints: dict[str, str] = {}
        self._log: list[Object] = []
        self._lock = threading.RLock()
        self._started = time.monotonic()

    def get(self, kind: str, name: str) -> Object | None:
        with self._lock:
            return copy.deepcopy(self._objects.get((kind, name)))

    def names(self, kind: str) -> list[str]:
        with self._lock:
            return sorted(name for stored_kind, name in self._objects if stored_kind == kind)

    def apply(self, manifest: Object) -> None:
        """Create or change an object as a sync does: the status and Flagger's replicas stay."""
        kind, name = manifest["kind"], manifest["metadata"]["name"]
        with self._lock:
            if (kind, name) not in self._objects:
                self._create(manifest)
                return
            replicas = self._objects[kind, name]["spec"].get("replicas")
            spec = copy.deepcopy(manifest["spec"])
            if replicas is not None:
                spec.setdefault("replicas", replicas)
            self.update(kind, name, lambda stored: stored.update(spec=spec))
            kept = self._objects[kind, name]["metadata"]
            kept.update({key: manifest["metadata"].get(key, {}) for key in ("labels", "annotations")})
            self._save()

    def update(self, kind: str, name: str, change: Callable[[Object], None]) -> None:
        """Change one object in place; a changed spec raises its generation."""
        with self._lock:
            stored = self._objects[kind, name]
            spec = copy.deepcopy(stored["spec"])
            change(stored)
            stored["metadata"]["generation"] += stored["spec"] != spec
            self._save()

    def endpoint(self, deployment: str) -> str | None:
        """Return the URL of the Deployment's ready pod; None without one."""
        with self._lock:
            return self._endpoints.get(deployment)

    def set_endpoint(self, deployment: str, url: str | None) -> None:
        with self._lock:
            if url is None:
                self._endpoints.pop(deployment, None)
            else:
                self._endpoints[deployment] = url

    def log(self, source: str, text: str) -> None:
        with self._lock:
            self._log.append({"t": round(time.monotonic() - self._started, 3), "source": source, "text": text})

    def events(self) -> list[Object]:
        """Return everything logged since the start: `t` in seconds, `source`, `text`."""
        with self._lock:
            return list(self._log)

    def _create(self, manifest: Object) -> None:
        made = copy.deepcopy(manifest)
        made["metadata"] |= {"uid": str(uuid.uuid4()), "generation": 1, "creationTimestamp": timestamp()}
        made["metadata"]["namespace"] = self.namespace
        made["status"] = {"phase": ""} if made["kind"] == "Canary" else {}
        if made["kind"] == "Deployment":
            made["spec"].setdefault("replicas", 1)
        self._objects[made["kind"], made["metadata"]["name"]] = made
        self._save()

    def _save(self) -> None:
        if self.state is not None:
            aside = self.state.with_suffix(".new")
            aside.write_text(json.dumps(list(self._objects.values())), encoding="utf-8")
            aside.replace(self.state)


def _load(state: Path | None) -> dict[tuple[str, str], Object]:
    if state is None or not state.exists():
        return {}
    stored: list[Object] = json.loads(state.read_text(encoding="utf-8"))
    for resource in stored:
        if resource["kind"] == "Deployment":
            resource["status"] = {}  # its pods ended with the process that ran them
    return {(resource["kind"], resource["metadata"]["name"]): resource for resource in stored}


def timestamp() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def spec_hash(template: Object) -> str:
    """Return a stable hash of a pod template. Flagger computes another one; only equality matters."""
    return digest_json(template)[:10]


def api(cluster: Cluster) -> FastAPI:
    """Return the app: GET of one Canary, Deployment or HTTPRoute at its Kubernetes path; /events; /healthz."""
    app = FastAPI(title="rehearsal cluster", openapi_url=None)

    @app.get("/healthz")
    def healthz() -> Object:
        return {"ok": True}

    @app.get("/events")
    def events() -> list[Object]:
        return cluster.events()

    @app.get("/apis/{group}/{version}/namespaces/{namespace}/{plural}/{name}")
    def read(group: str, version: str, namespace: str, plural: str, name: str) -> JSONResponse:
        kind = KINDS.get((group, version, plural))
        resource = cluster.get(kind, name) if kind and namespace == cluster.namespace else None
        return JSONResponse(resource) if resource else JSONResponse(_not_found(group, plural, name), 404)

    return app


def _not_found(group: str, plural: str, name: str) -> Object:
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "message": f'{plural}.{group} "{name}" not found',
        "reason": "NotFound",
        "details": {"name": name, "group": group, "kind": plural},
        "code": 404,
    }
