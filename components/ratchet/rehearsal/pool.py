"""Adapter sync: what a pod template serves must be in the model pool, and be what its digest says."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from ratchet.digest import digest_tree
from ratchet.errors import UserError
from ratchet.store import open_store

LOAD_TIMEOUT_S = 120.0
LIST_TIMEOUT_S = 5.0
PREFIX = "ratchet.dev/adapter-"
BASE = "base"


@dataclass(frozen=True)
class Adapter:
    """The adapter that a pod template is annotated with."""

    name: str
    version: str
    uri: str
    digest: str

    @property
    def model_id(self) -> str:
        return f"{self.name}@v{self.version}"


def adapter_of(template: dict[str, Any]) -> Adapter | None:
    """None for the base model alone. Raises UserError where annotations are missing."""
    annotations = template["metadata"].get("annotations", {})
    try:
        adapter = Adapter(*(annotations[PREFIX + key] for key in ("name", "version", "uri", "digest")))
    except KeyError as missing:
        raise UserError(f"the pod template lacks the annotation {missing}; the chart must render it") from None
    return None if adapter.digest == BASE else adapter


class Pool:
    """The model server that all routers share, seen as a set of loaded adapters."""

    def __init__(self, url: str) -> None:
        self.client = httpx.Client(base_url=url, trust_env=False)
        self.loaded: set[Adapter] = set()
        self._verified: set[Adapter] = set()

    def ensure(self, adapter: Adapter) -> None:
        """Have the pool serve the adapter. Raises UserError if its files are wrong or the pool refuses."""
        self._verify(adapter)
        if adapter.model_id not in self._listed():
            self._load(adapter)
        self.loaded.add(adapter)

    def keep_only(self, referenced: set[Adapter]) -> None:
        """Unload what was loaded here and no Deployment names any more."""
        for adapter in self.loaded - referenced:
            self._post("/v1/unload_lora_adapter", {"lora_name": adapter.model_id})
            self.loaded.discard(adapter)

    def _verify(self, adapter: Adapter) -> None:
        if adapter in self._verified:
            return
        folder = _folder(adapter.uri)
        found = digest_tree(folder) if folder.is_dir() else "nothing"
        if found != adapter.digest:
            raise UserError(f"{adapter.uri} holds {found}, not {adapter.digest}: {adapter.model_id} will not be served")
        self._verified.add(adapter)

    def _load(self, adapter: Adapter) -> None:
        body = {"lora_name": adapter.model_id, "lora_path": str(_folder(adapter.uri))}
        answer = self._post("/v1/load_lora_adapter", body)
        is_loaded_twice = answer.status_code == httpx.codes.BAD_REQUEST and adapter.model_id in self._listed()
        if not (answer.is_success or is_loaded_twice):
            raise UserError(f"the pool refuses {adapter.model_id}: {answer.status_code} {answer.text[:500]}")

    def _listed(self) -> set[str]:
        try:
            models = self.client.get("/v1/models", timeout=LIST_TIMEOUT_S).raise_for_status().json()["data"]
        except httpx.HTTPError as error:
            raise self._away(error) from None
        return {model["id"] for model in models}

    def _post(self, path: str, body: dict[str, str]) -> httpx.Response:
        try:
            return self.client.post(path, json=body, timeout=LOAD_TIMEOUT_S)
        except httpx.HTTPError as error:
            raise self._away(error) from None

    def _away(self, error: httpx.HTTPError) -> UserError:
        return UserError(f"the model pool at {self.client.base_url} does not answer: {error!r}; is it running?")


def _folder(uri: str) -> Path:
    root, _, name = uri.rstrip("/").rpartition("/")
    return open_store(root or "/").local(name)
