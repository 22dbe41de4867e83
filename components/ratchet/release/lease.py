"""One reconciler at a time: a lease in the lake, taken over once its holder has not renewed it."""

import json

from ratchet.errors import Conflict
from ratchet.store import Store

KEY = "leases/reconciler.json"
MIN_LEASE_S = 5.0  # longer than a pass takes; effects are idempotent, so even two holders only do double work
POLLS = 3  # a holder may miss two polls


def hold(store: Store, holder: str, now: float, lease_s: float) -> bool:
    """Take, keep or take over the lease; False while another holds it."""
    fresh = json.dumps({"holder": holder, "expires_at": now + lease_s}).encode()
    try:
        if not store.exists(KEY):
            store.create(KEY, fresh)
            return True
        held = store.read(KEY)
        lease = json.loads(held)
        if lease["holder"] != holder and lease["expires_at"] > now:
            return False
        if lease["holder"] != holder or lease["expires_at"] < now + lease_s / 2:
            store.replace(KEY, fresh, expected=held)
    except Conflict:
        return False
    return True


def lease_s(poll_s: float) -> float:
    """How long a lease lasts for a holder that comes by every `poll_s` seconds."""
    return max(MIN_LEASE_S, POLLS * poll_s)


def let_go(store: Store, holder: str) -> None:
    """End our lease now, so that the next holder need not wait."""
    if store.exists(KEY):
        held = store.read(KEY)
        if json.loads(held)["holder"] == holder:
            store.replace(KEY, json.dumps({"holder": "", "expires_at": 0.0}).encode(), expected=held)
