"""Writes that only the holder of the lease may make."""

from collections.abc import Callable
from typing import Any

from ratchet.lease import is_held
from ratchet.store import Store


class LeaseLost(Exception):
    """Our lease has gone to another while we were at work; what is left to do is theirs."""


class LeaseGuard:
    """A place that is written to only while we hold the lease, however long we slept since we took it.

    MLflow has no compare-and-swap, so a write that is on its way when the lease runs out still arrives; Git and the
    ledger refuse it by themselves.
    """

    WRITES = ("write", "set", "delete")

    def __init__(self, place: Any, store: Store, lease: str, holder: str, clock: Callable[[], float]) -> None:
        self._place, self._store, self._lease, self._holder, self._clock = place, store, lease, holder, clock

    def __getattr__(self, name: str) -> Any:
        is_ours = not name.startswith(self.WRITES) or is_held(self._store, self._lease, self._holder, self._clock())
        if not is_ours:
            raise LeaseLost("the lease is not ours any more")
        return getattr(self._place, name)
