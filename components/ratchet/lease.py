"""A lease in the lake: one holder at a time, taken over once its holder has not renewed it.

On it rests `exclusive`, which lets one run of a step work on a lake while others wait. Orchestrators queue too, each
in its own way; this holds between them, and for Kubeflow, which has no mutex. It saves a GPU from two trainings, not
the data from harm: if two work at once after all (a machine that slept for longer than a lease), they make the same
bytes, and one manifest is published.
"""

import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ratchet.errors import Conflict
from ratchet.store import Store

LEASE_S = 15.0  # of `exclusive`
RENEW_S = LEASE_S / 4
POLL_S = 1.0

log = logging.getLogger("ratchet")


def new_holder() -> str:
    """Return a new name for a lease's holder: machine, process, and a random part."""
    return f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"


@dataclass
class Watch:
    """What a waiter saw of a lease, and since when by its own clock: the holder's may be hours ahead of it."""

    held: bytes = b""
    since: float = 0.0

    def is_over(self, held: bytes, lease_s: float) -> bool:
        """Return whether the lease has stayed as it is for `lease_s`, in which its holder would have renewed it."""
        if held != self.held:
            self.held, self.since = held, time.monotonic()
        return time.monotonic() - self.since > lease_s


def acquire(store: Store, key: str, holder: str, now: float, lease_s: float, watch: Watch | None = None) -> bool:
    """Take, renew or take over the lease for `lease_s` seconds from `now`; False while another holds it.

    With the same `watch` in each call, a lease that is not renewed is taken over whatever its holder's clock said.
    """
    fresh = json.dumps({"holder": holder, "expires_at": now + lease_s}).encode()
    try:
        if not store.exists(key):
            store.create(key, fresh)
            return True
        held = store.read(key)
        lease = json.loads(held)
        is_over = watch is not None and watch.is_over(held, lease_s)
        if lease["holder"] != holder and lease["expires_at"] > now and not is_over and not _is_dead(lease["holder"]):
            return False
        if lease["holder"] != holder or lease["expires_at"] < now + lease_s / 2:
            store.replace(key, fresh, expected=held)
    except Conflict:
        return False
    return True


def is_held(store: Store, key: str, holder: str, now: float) -> bool:
    """Return whether this holder has the lease at `now` (Unix seconds)."""
    lease: dict[str, Any] = json.loads(store.read(key))
    return bool(lease["holder"] == holder and lease["expires_at"] > now)


def release(store: Store, key: str, holder: str) -> None:
    """End our lease now, so that the next holder need not wait. If that fails, the lease expires by itself."""
    try:
        held = store.read(key)
        if json.loads(held)["holder"] == holder:
            store.replace(key, json.dumps({"holder": "", "expires_at": 0.0}).encode(), expected=held)
    except Exception:  # any store's own error: the work is done, and the lease expires by itself
        log.warning("the lease %s could not be released; it expires by itself", key, exc_info=True)


def holder_of(store: Store, key: str) -> str:
    lease: dict[str, Any] = json.loads(store.read(key))
    return str(lease["holder"])


@contextmanager
def exclusive(store: Store, name: str) -> Iterator[None]:
    """Hold the lease of `name` inside the block; wait for it first, with one line in the log."""
    key, holder, watch = f"queue/{name}.json", new_holder(), Watch()
    is_logged = False
    while not acquire(store, key, holder, time.time(), LEASE_S, watch):
        if not is_logged:
            log.warning("%s: %s is at work on %s; waiting", name, holder_of(store, key), store.root)
            is_logged = True
        time.sleep(POLL_S)
    done = threading.Event()
    renewing = threading.Thread(target=_renew, args=(store, key, holder, done), daemon=True)
    renewing.start()
    try:
        yield
    finally:
        done.set()
        renewing.join()
        release(store, key, holder)


def _renew(store: Store, key: str, holder: str, done: threading.Event) -> None:
    while not done.wait(RENEW_S):
        try:
            acquire(store, key, holder, time.time(), LEASE_S)
        except Exception:  # an unreachable store: the work goes on, and ends by publishing create-only
            log.warning("the lease %s could not be renewed", key, exc_info=True)


def _is_dead(holder: str) -> bool:
    """Return whether the holder is a process of this machine that has ended. For other machines only time tells."""
    host, _, pid = holder.rpartition(":")[0].rpartition(":")
    if host != socket.gethostname():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # another user's process, and alive
        pass
    return False
