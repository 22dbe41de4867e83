"""Objects of the Kubernetes API, and what more than one check asks of them."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self

import httpx

from ratchet.errors import UserError
from ratchet.release.reconciler.kubernetes import api_client

Object = Mapping[str, Any]


class Api:
    """Objects by path; None for one that is not there."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    @classmethod
    @contextmanager
    def of(cls, url: str) -> Iterator[Self]:
        with api_client(url) as client:
            yield cls(client)

    def get(self, path: str, **parameters: str) -> dict[str, Any] | None:
        return self._read(path, self._client.get(path, params=parameters))

    def items(self, path: str, **parameters: str) -> list[dict[str, Any]]:
        return list((self.get(path, **parameters) or {}).get("items") or [])

    def ask(self, path: str, body: Object) -> dict[str, Any] | None:
        return self._read(path, self._client.post(path, json=body))

    @staticmethod
    def _read(path: str, answer: httpx.Response) -> dict[str, Any] | None:
        if answer.status_code == httpx.codes.NOT_FOUND:
            return None
        if answer.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            raise UserError(
                f"{path}: {answer.status_code}; use an account that may read it, as through `kubectl proxy`"
            )
        found: dict[str, Any] = answer.raise_for_status().json()
        return found


def find_flagger(api: Api) -> dict[str, Any] | None:
    """Flagger's Deployment, by the label of its chart."""
    found = api.items("/apis/apps/v1/deployments", labelSelector="app.kubernetes.io/name=flagger")
    return found[0] if found else None


def containers_of(deployment: Object) -> list[dict[str, Any]]:
    """The containers of its pods."""
    containers: list[dict[str, Any]] = deployment["spec"]["template"]["spec"]["containers"]
    return containers
