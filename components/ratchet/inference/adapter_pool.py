"""Load and unload the adapters of a model pool; each is verified by its digest before it is loaded."""

import re
import shutil
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import httpx

from ratchet.adapter_files import check_servable
from ratchet.adapter_ref import AdapterRef
from ratchet.digest import digest_tree
from ratchet.errors import UserError
from ratchet.store import Store, open_store

LOAD_TIMEOUT_S = 120.0
LIST_TIMEOUT_S = 5.0
FIRST_WAIT_S, LONGEST_WAIT_S = 10.0, 600.0  # after a refusal; each load costs a pool's users an engine step and more
DIGEST = re.compile("[0-9a-f]{64}")


class PoolAway(UserError):
    """The pool does not answer."""


@dataclass(frozen=True)
class Refusal:
    """Why an adapter is not loaded, and when it may be tried again, by `time.monotonic()`."""

    why: str
    wait_s: float
    until: float


class AdapterPool:
    """The adapters of one model server.

    With a `folder`, which the server sees too and nobody else writes to, their files are copied there first, one
    subfolder each, named by digest. vLLM reads them again whenever it needs room, so they stay while they are loaded.
    """

    def __init__(self, url: str, folder: Path | None = None) -> None:
        self.client = httpx.Client(base_url=url, trust_env=False)
        self._folder = folder and folder.absolute()
        self._verified: dict[AdapterRef, Path] = {}
        self._refused: dict[AdapterRef, Refusal] = {}
        self._mine: set[str] = set()

    def close(self) -> None:
        self.client.close()

    def ensure(self, adapter: AdapterRef) -> None:
        """Load the adapter unless it is loaded. Raises UserError if its files are wrong or the pool refuses.

        What was refused is refused again without a try for a while, which doubles each time.
        """
        refusal = self._refused.get(adapter)
        if refusal and time.monotonic() < refusal.until:
            raise UserError(refusal.why)
        try:
            self._ensure(adapter)
        except PoolAway:
            raise
        except UserError as error:
            wait_s = min(LONGEST_WAIT_S, 2 * refusal.wait_s if refusal else FIRST_WAIT_S)
            self._refused[adapter] = Refusal(str(error), wait_s, time.monotonic() + wait_s)
            raise
        self._refused.pop(adapter, None)

    def keep_only(self, wanted: Iterable[AdapterRef]) -> None:
        """Unload every other adapter that came from `folder`, or from this object, and remove its files."""
        kept = set(wanted)
        names = {str(adapter) for adapter in kept}
        for name, place in self.loaded().items():
            if name not in names and (place.parent == self._folder or name in self._mine):
                self._unload(name)
        self._verified = {adapter: place for adapter, place in self._verified.items() if adapter in kept}
        self._refused = {adapter: refusal for adapter, refusal in self._refused.items() if adapter in kept}
        if self._folder is not None and self._folder.is_dir():
            needed = {adapter.digest for adapter in kept} | {place.name for place in self.loaded().values()}
            for path in self._folder.iterdir():  # adapters, and what a killed syncer had begun to copy
                if path.name not in needed and (DIGEST.fullmatch(path.name) or path.name.startswith(".")):
                    shutil.rmtree(path)

    def loaded(self) -> dict[str, Path]:
        """Return the folder of each loaded adapter by its name in the pool. Raises PoolAway."""
        try:
            cards = self.client.get("/v1/models", timeout=LIST_TIMEOUT_S).raise_for_status().json()["data"]
        except httpx.HTTPError as error:
            raise self._away(error) from None
        return {card["id"]: Path(card["root"] or "") for card in cards if card["parent"] is not None}

    def _ensure(self, adapter: AdapterRef) -> None:
        name, place = str(adapter), self._verified.get(adapter)
        if place is None:
            place = self._verified[adapter] = self._verify(adapter)
        there = self.loaded().get(name)
        if there == place:
            return
        if there is not None:  # other weights under this name, as after an adapter was registered anew
            self._unload(name)
        answer = self._post("/v1/load_lora_adapter", {"lora_name": name, "lora_path": str(place)})
        if not answer.is_success and self.loaded().get(name) != place:
            raise UserError(f"the pool refuses {adapter}: {answer.status_code} {answer.text[:500]}")
        self._mine.add(name)

    def _unload(self, name: str) -> None:
        self._post("/v1/unload_lora_adapter", {"lora_name": name})
        self._mine.discard(name)

    def _verify(self, adapter: AdapterRef) -> Path:
        """Return the folder of the adapter's files, after checking their digest."""
        root, _, name = adapter.uri.rstrip("/").rpartition("/")
        store = open_store(root or "/")
        if self._folder is None:
            return _checked(store.local(name), adapter)
        if not DIGEST.fullmatch(adapter.digest):
            raise UserError(f"the digest of {adapter}, {adapter.digest!r:.100}, is no SHA-256 in hexadecimal digits")
        place = self._folder / adapter.digest
        if not place.exists():
            self._fetch(adapter, store, name, place)
        _checked(place, adapter)
        check_servable(place)
        return place

    def _fetch(self, adapter: AdapterRef, store: Store, name: str, place: Path) -> None:
        """Copy the files next to `place`, verify them, then move: incomplete or wrong files never appear there."""
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".", dir=place.parent) as aside:
            copy = Path(aside) / "copy"
            for key in store.list(name):
                member = key.removeprefix(f"{name}/")
                if {"", ".", ".."} & set(member.split("/")):
                    raise UserError(f"{store.root} holds {key!r}, which leads out of {name}: {adapter} is not fetched")
                (copy / member).parent.mkdir(parents=True, exist_ok=True)
                store.download(key, copy / member)
            _checked(copy, adapter)
            shutil.move(copy, place)

    def _post(self, path: str, body: dict[str, str]) -> httpx.Response:
        try:
            return self.client.post(path, json=body, timeout=LOAD_TIMEOUT_S)
        except httpx.HTTPError as error:
            raise self._away(error) from None

    def _away(self, error: httpx.HTTPError) -> PoolAway:
        self._refused.clear()  # another server may take what this one refused
        return PoolAway(f"the model pool at {self.client.base_url} does not answer: {error!r}; is it running?")


def _checked(folder: Path, adapter: AdapterRef) -> Path:
    actual = digest_tree(folder) if folder.is_dir() else "nothing"
    if actual != adapter.digest:
        raise UserError(f"{adapter.uri} holds {actual}, not {adapter.digest}: {adapter} will not be served")
    return folder
