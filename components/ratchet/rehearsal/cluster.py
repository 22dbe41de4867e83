"""The rehearsal cluster's state, and the part of the Kubernetes REST API that reads it."""

import copy
import json
import threading
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from fastapi import FastAPI
from fastapi.responses import JSONResponse

Object = dict[str, Any]
Write = Literal["apply", "create", "update", "patch", "status", "delete"]
KINDS = {
    ("flagger.app", "v1beta1", "canaries"): "Canary",
    ("apps", "v1", "deployments"): "Deployment",
    ("gateway.networking.k8s.io", "v1", "httproutes"): "HTTPRoute",
}


class Cluster:
    """Objects by kind and name, endpoints by Deployment, and a log. Thread-safe.

    A write replaces the object, so that what was read never changes: readers must not change it either. With a `state`
    file the objects survive a restart of the process, as they do in etcd.
    """

    def __init__(self, namespace: str, state: Path | None = None, clock: Callable[[], float] = time.time) -> None:
        self.namespace, self.state, self.clock = namespace, state, clock
        self.on_write: list[Callable[[Write, Object], None]] = []
        """Called after each write, inside of whatever makes it: so a reader can look between any two writes."""
        self._objects: dict[tuple[str, str], Object] = _load(state)
        self._endpoints: dict[str, str] = {}
        self._log: list[Object] = []
        self._lock = threading.RLock()
        self._started = time.monotonic()

    def get(self, kind: str, name: str) -> Object | None:
        with self._lock:
            return self._objects.get((kind, name))

    def names(self, kind: str) -> list[str]:
        with self._lock:
            return sorted(name for stored_kind, name in self._objects if stored_kind == kind)

    def now(self) -> str:
        """Return the time as Kubernetes writes it: in whole seconds."""
        return datetime.fromtimestamp(self.clock(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    def apply(self, manifest: Object) -> None:
        """Create or change an object as a sync does: the status and Flagger's replicas stay."""
        kind, name = manifest["kind"], manifest["metadata"]["name"]
        with self._lock:
            before = self._objects.get((kind, name))
            if before is None:
                self.create(manifest)
                return
            made = copy.deepcopy(manifest)
            if "replicas" in before.get("spec", {}):
                made["spec"].setdefault("replicas", before["spec"]["replicas"])

            def change(stored: Object) -> None:
                stored.update({key: made[key] for key in ("spec", "data") if key in made})
                stored["metadata"].update({key: made["metadata"].get(key, {}) for key in ("labels", "annotations")})

            self.update(kind, name, change, "apply")

    def create(self, manifest: Object) -> None:
        made = copy.deepcopy(manifest)
        made["metadata"] |= {"uid": str(uuid.uuid4()), "generation": 1, "creationTimestamp": self.now()}
        made["metadata"]["namespace"] = self.namespace
        made.setdefault("status", {})
        if made["kind"] == "Deployment":
            made["spec"].setdefault("replicas", 1)
        self._put(made, "create")

    def update(self, kind: str, name: str, change: Callable[[Object], None], write: Write = "update") -> None:
        """Change a copy of one object and store it; a changed spec raises its generation."""
        with self._lock:
            stored = self._objects[kind, name]
            made = copy.deepcopy(stored)
            change(made)
            made["metadata"]["generation"] += made.get("spec") != stored.get("spec")
            self._put(made, write)

    def update_or_create(self, manifest: Object) -> None:
        """Update, and create where that finds nothing: the API server sees both attempts."""
        kind, name = manifest["kind"], manifest["metadata"]["name"]
        with self._lock:
            if (kind, name) in self._objects:
                self.update(kind, name, lambda stored: stored.update(data=manifest["data"]))
            else:
                self._tell("update", manifest)
                self.create(manifest)

    def delete(self, kind: str, name: str) -> None:
        with self._lock:
            gone = self._objects.pop((kind, name), None)
            if gone is not None:
                self._save()
                self._tell("delete", gone)

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

    def _put(self, made: Object, write: Write) -> None:
        with self._lock:
            self._objects[made["kind"], made["metadata"]["name"]] = made
            self._save()
            self._tell(write, made)

    def _tell(self, write: Write, made: Object) -> None:
        for listener in self.on_write:
            listener(write, made)

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
