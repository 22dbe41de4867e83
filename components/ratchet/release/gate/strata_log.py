"""Keep the strata that a test has read in the lake, so that evidence is only ever added to.

`canaries/{request:08d}.{test}/{n:06d}.json`, one object for the strata of one look, create-only: a gate that starts
again, or runs beside another, goes on from the same evidence, whatever events land late.
"""

from collections.abc import Sequence

from pydantic import TypeAdapter

from ratchet.errors import Conflict
from ratchet.release.gate.strata import Stratum
from ratchet.release.gate.traffic_log import ROOT
from ratchet.store import Store

STRATA = TypeAdapter(list[Stratum])


class StrataLog:
    """The strata that one test of one release's canary has read."""

    def __init__(self, store: Store, request: int, test: str) -> None:
        self.store, self.folder = store, f"{ROOT}/{request:08d}.{test}"
        self._load()

    def append(self, strata: Sequence[Stratum]) -> None:
        """Add strata that were read at one look. Another gate that read the same ones first wins."""
        if not strata:
            return
        try:
            self.store.create(f"{self.folder}/{self._num_looks:06d}.json", STRATA.dump_json(list(strata)))
        except Conflict:
            self._load()
            return
        self.strata.extend(strata)
        self._num_looks += 1

    def _load(self) -> None:
        keys = list(self.store.list(self.folder))
        self.strata = [stratum for key in keys for stratum in STRATA.validate_json(self.store.read(key))]
        self._num_looks = len(keys)
