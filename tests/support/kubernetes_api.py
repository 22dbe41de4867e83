"""The part of the Kubernetes API that reads objects, over real HTTP: a stand-in, since no API server is to be had here.

Paths, lists, label selectors and SubjectAccessReview are as Kubernetes' API reference has them. The objects come from
the charts, rendered by Helm; access is decided by the Roles and RoleBindings among them.
"""

from collections.abc import Iterable
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

Object = dict[str, Any]
CORE = ("v1",)


def plural(kind: str) -> str:
    """The resource's name in paths."""
    low = kind.lower()
    if low.endswith("y") and low[-2] not in "aeiou":
        return f"{low[:-1]}ies"
    return low if low == "endpoints" else f"{low}es" if low.endswith("s") else f"{low}s"


class KubernetesApi:
    """Objects of one cluster; `objects` may change while it serves."""

    def __init__(self, objects: Iterable[Object], namespace: str, version: tuple[str, str] = ("1", "31")) -> None:
        self.objects = list(objects)
        for each in self.objects:
            each["metadata"].setdefault("namespace", namespace)
        self.version = version
        self.app = FastAPI()
        self.app.get("/version")(self._version)
        self.app.post("/apis/authorization.k8s.io/v1/subjectaccessreviews")(self._review)
        self.app.get("/{path:path}")(self._get)

    def find(self, kind: str, name: str) -> Object:
        return next(each for each in self.objects if (each["kind"], each["metadata"]["name"]) == (kind, name))

    async def _version(self) -> dict[str, str]:
        return {"major": self.version[0], "minor": f"{self.version[1]}+"}

    async def _get(self, path: str, request: Request) -> JSONResponse:
        parts = path.split("/")
        group = parts[1] if parts[0] == "api" else f"{parts[1]}/{parts[2]}"
        rest = parts[2:] if parts[0] == "api" else parts[3:]
        if not rest:
            kinds = sorted({plural(each["kind"]) for each in self.objects if each["apiVersion"] == group})
            return JSONResponse({"resources": [{"name": kind} for kind in kinds]}) if kinds else _absent()
        namespace = None
        if rest[0] == "namespaces" and len(rest) > 2:
            namespace, rest = rest[1], rest[2:]
        found = [
            each
            for each in self.objects
            if (each["apiVersion"], plural(each["kind"])) == (group, rest[0])
            and namespace in (None, each["metadata"]["namespace"])
        ]
        if len(rest) > 1:
            named = [each for each in found if each["metadata"]["name"] == rest[1]]
            return JSONResponse(named[0]) if named else _absent()
        wanted = dict(
            pair.split("=") for pair in filter(None, request.query_params.get("labelSelector", "").split(","))
        )
        return JSONResponse(
            {"items": [each for each in found if wanted.items() <= each["metadata"].get("labels", {}).items()]}
        )

    async def _review(self, request: Request) -> JSONResponse:
        spec = (await request.json())["spec"]
        asked = spec["resourceAttributes"]
        _, _, namespace, account = spec["user"].split(":")
        bound = {
            each["roleRef"]["name"]
            for each in self.objects
            if each["kind"] == "RoleBinding"
            and each["metadata"]["namespace"] == asked["namespace"]
            and any((one["name"], one.get("namespace")) == (account, namespace) for one in each["subjects"])
        }
        rules = [
            rule
            for each in self.objects
            if each["kind"] == "Role" and each["metadata"]["name"] in bound
            for rule in each["rules"]
        ]
        allowed = any(
            asked["group"] in rule["apiGroups"]
            and asked["resource"] in rule["resources"]
            and asked["verb"] in rule["verbs"]
            for rule in rules
        )
        return JSONResponse({"status": {"allowed": allowed}}, status_code=201)


def _absent() -> JSONResponse:
    return JSONResponse({"kind": "Status", "reason": "NotFound"}, status_code=404)
