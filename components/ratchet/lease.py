"""A lease in the lake: one holder at a time, taken over once its holder has not renewed it."""

import json
import logging
import os
import socket
import uuid
from typing import Any

from ratchet.errors import Conflict
from ratchet.store import Store

log = logging.getLogger("ratchet")


def new_holder() -> str:
    """A name for a lease's holder: which process of which machine, never the same twice."""
    return f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"


def acquire(store: Store, key: str, holder: str, now: float, lease_s: float) -> bool:
    """Take, keep or take over the lease; False while another holds it."""
    fresh = json.dumps({"holder": holder, "expires_at": now + lease_s}).encode()
    try:
        if not store.exists(key):
            store.create(key, fresh)
            return True
        held = store.read(key)
        lease = json.loads(held)
        if lease["holder"] != holder and lease["expires_at"] > now and not _is_dead(lease["holder"]):
            return False
        if lease["holder"] != holder or lease["expires_at"] < now + lease_s / 2:
            store.replace(key, fresh, expected=held)
    except Conflict:
        return False
    return True


def is_held(store: Store, key: str, holder: str, now: float) -> bool:
    """Whether the lease is this holder's at this moment."""
    lease: dict[str, Any] = json.loads(store.read(key))
    return bool(lease["holder"] == holder and lease["expires_at"] > now)


def release(store: Store, key: str, holder: str) -> None:
    """End our lease now, so that the next holder need not wait. Where that fails it ends by itself, a little later."""
    try:
        held = store.read(key)
        if json.loads(held)["holder"] == holder:
            store.replace(key, json.dumps({"holder": "", "expires_at": 0.0}).encode(), expected=held)
    except Exception:  # an unreachable store, whose errors are its own: what the lease was for is done
        log.warning("the lease %s could not be given back; it runs out", key, exc_info=True)


def holder_of(store: Store, key: str) -> str:
    lease: dict[str, Any] = json.loads(store.read(key))
    return str(lease["holder"])


def _is_dead(holder: str) -> bool:
    """A process of this very machine that has ended. Of other machines only the clock tells."""
    host, _, pid = holder.rpartition(":")[0].rpartition(":")
    if host != socket.gethostname():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # somebody else's, and alive
        pass
    return False
