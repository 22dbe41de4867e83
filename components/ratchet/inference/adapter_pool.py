"""Load and unload the adapters of a model pool; each is verified by its digest before it is loaded."""

import shutil
import tempfile
from pathlib import Path

import httpx

from ratchet.adapter_ref import AdapterRef
from ratchet.digest import digest_tree
from ratchet.errors import UserError
from ratchet.store import open_store

LOAD_TIMEOUT_S = 120.0
LIST_TIMEOUT_S = 5.0


class AdapterPool:
    """The adapters of one model server. With a `folder`, their files are copied there first, one subfolder each."""

    def __init__(self, url: str, folder: Path | None = None) -> None:
        self.client = httpx.Client(base_url=url, trust_env=False)
        self.loaded: set[AdapterRef] = set()
        self._folder = folder
        self._verified: dict[AdapterRef, Path] = {}

    def close(self) -> None:
        self.client.close()

    def ensure(self, adapter: AdapterRef) -> None:
        """Load the adapter unless it is loaded. Raises UserError if its files are wrong or the pool refuses."""
        if adapter not in self._verified:
            self._verified[adapter] = self._verify(adapter)
        if str(adapter) not in self.listed():
            self._load(adapter)
        self.loaded.add(adapter)

    def keep_only(self, referenced: set[AdapterRef]) -> None:
        """Unload the adapters that this object loaded and `referenced` no longer holds."""
        for adapter in self.loaded - referenced:
            self._post("/v1/unload_lora_adapter", {"lora_name": str(adapter)})
            self.loaded.discard(adapter)

    def listed(self) -> set[str]:
        """Return the names of all models in the pool. Raises UserError if it does not answer."""
        try:
            models = self.client.get("/v1/models", timeout=LIST_TIMEOUT_S).raise_for_status().json()["data"]
        except httpx.HTTPError as error:
            raise self._away(error) from None
        return {model["id"] for model in models}

    def _verify(self, adapter: AdapterRef) -> Path:
        """Return the folder of the adapter's files, after checking their digest."""
        if self._folder is None:
            root, _, name = adapter.uri.rstrip("/").rpartition("/")
            return _checked(open_store(root or "/").local(name), adapter)
        place = self._folder / adapter.digest
        if not place.exists():
            self._fetch(adapter, place)
        return _checked(place, adapter)

    def _fetch(self, adapter: AdapterRef, place: Path) -> None:
        """Copy the files next to `place`, verify them, then move: incomplete or wrong files never appear there."""
        root, _, name = adapter.uri.rstrip("/").rpartition("/")
        store = open_store(root or "/")
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".", dir=place.parent) as aside:
            copy = Path(aside) / "copy"
            for key in store.list(name):
                target = copy / Path(key).relative_to(name)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(store.read(key))
            _checked(copy, adapter)
            shutil.move(copy, place)

    def _load(self, adapter: AdapterRef) -> None:
        body = {"lora_name": str(adapter), "lora_path": str(self._verified[adapter])}
        answer = self._post("/v1/load_lora_adapter", body)
        is_loaded_twice = answer.status_code == httpx.codes.BAD_REQUEST and str(adapter) in self.listed()
        if not (answer.is_success or is_loaded_twice):
            raise UserError(f"the pool refuses {adapter}: {answer.status_code} {answer.text[:500]}")

    def _post(self, path: str, body: dict[str, str]) -> httpx.Response:
        try:
            return self.client.post(path, json=body, timeout=LOAD_TIMEOUT_S)
        except httpx.HTTPError as error:
            raise self._away(error) from None

    def _away(self, error: httpx.HTTPError) -> UserError:
        return UserError(f"the model pool at {self.client.base_url} does not answer: {error!r}; is it running?")


def _checked(folder: Path, adapter: AdapterRef) -> Path:
    actual = digest_tree(folder) if folder.is_dir() else "nothing"
    if actual != adapter.digest:
        raise UserError(f"{adapter.uri} holds {actual}, not {adapter.digest}: {adapter} will not be served")
    return folder
