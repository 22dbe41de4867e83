"""Which scheduler runs the loop on a lake: one at a time, since two would train and release twice a night.

Airflow's hourly DAG and Argo's nightly cron name themselves when they collect; the first to come holds the lake until a
person hands it over, or until it has been silent for `SILENCE_S`. A run that a person starts names no scheduler, and is
never refused.
"""

import json
import time

from ratchet.errors import UserError
from ratchet.lease import acquire, release
from ratchet.store import Store

KEY = "queue/scheduler.json"
SILENCE_S = 8 * 24 * 3600.0
"""Longer than a night's run may last, with a weekend's wait for a person and a day's canary in it."""


def claim(store: Store, scheduler: str, now: float) -> None:
    """Hold the lake for this scheduler. Raises UserError while another holds it."""
    held = scheduler_of(store, now)
    if held is not None and held[1] > now + SILENCE_S:  # its clock was ahead: nobody claims for longer
        release(store, KEY, held[0])
    if acquire(store, KEY, scheduler, now, SILENCE_S):
        return
    holder, until = scheduler_of(store, now) or ("another scheduler", now + SILENCE_S)
    if holder == scheduler:  # its other run wrote first, or S3 answered a retry of our own write
        return
    raise UserError(
        f"{scheduler} may not run the loop on {store.root}: {holder} does, and holds it until "
        f"{time.strftime('%Y-%m-%d %H:%M', time.gmtime(until))} UTC unless it runs again. Suspend one of them "
        f"(pause Airflow's DAGs, or `argo cron suspend ratchet-loop`); `ratchet lake scheduler --release` hands the "
        "lake over"
    )


def scheduler_of(store: Store, now: float) -> tuple[str, float] | None:
    """Return the scheduler that holds the lake and the end of its claim in Unix seconds; None without one."""
    if not store.exists(KEY):
        return None
    held = json.loads(store.read(KEY))
    return (held["holder"], held["expires_at"]) if held["holder"] and held["expires_at"] > now else None


def hand_over(store: Store, now: float) -> str | None:
    """End the claim, whoever holds it; return the scheduler that did."""
    held = scheduler_of(store, now)
    if held is not None:
        release(store, KEY, held[0])
    return held and held[0]
