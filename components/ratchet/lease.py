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
    """Return a new name for a lease's holder: machine, process, and a random part."""
    return f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"


def acquire(store: Store, key: str, holder: str, now: float, lease_s: float) -> bool:
    """Take, renew or take over the lease for `lease_s` seconds from `now`; False while another holds it."""
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
