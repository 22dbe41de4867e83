"""One at a time: of several runs that want the same step of one lake, one works and the others wait their turn.

Orchestrators queue too, each in its own way; this holds between them, and for Kubeflow, which has no mutex. It saves
a GPU from two trainings, not the data from harm: should two work at once after all (a machine that slept for longer
than a lease), they make the same bytes, and one manifest is published.
"""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from ratchet.lease import acquire, holder_of, new_holder, release
from ratchet.store import Store

LEASE_S = 15.0
RENEW_S = LEASE_S / 4
POLL_S = 1.0

log = logging.getLogger("ratchet")


@contextmanager
def exclusive(store: Store, name: str) -> Iterator[None]:
    """Hold `name`'s lease inside the block; wait for it first, and say so."""
    key, holder = f"queue/{name}.json", new_holder()
    is_told = False
    while not acquire(store, key, holder, time.time(), LEASE_S):
        if not is_told:
            log.warning("%s: %s is at work on %s; waiting", name, holder_of(store, key), store.root)
            is_told = True
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
