"""Make traffic, registry, Git and ledger agree after a canary: observe, decide, act; one pass at a time.

Effects are idempotent and the ledger record that closes the release comes last, so a pass that died anywhere is
completed by the next one, here or on another machine.
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import httpx

from ratchet.adapter_ref import AdapterRef
from ratchet.config import Config
from ratchet.lease import acquire
from ratchet.release.gate.tokens import VARIABLE, bearer
from ratchet.release.gate.traffic_log import was_seen
from ratchet.release.ledger import LedgerRecord, is_aborted, open_request
from ratchet.release.reconciler import actions
from ratchet.release.reconciler.decide import Action, ActionKind, Observed, decide
from ratchet.release.reconciler.gitops import GitUnavailable
from ratchet.release.reconciler.kubernetes import ClusterSnapshot, ClusterUnavailable
from ratchet.release.reconciler.lease_guard import LeaseLost
from ratchet.release.reconciler.targets import LEASE, Targets, open_targets
from ratchet.store import Store

EFFECTS: dict[ActionKind, Callable[[Targets, actions.Outcome], list[str]]] = {
    "restore": actions.restore,
    "promote": actions.promote,
    "roll_back": actions.roll_back,
    "refuse": actions.refuse,
}
log = logging.getLogger("ratchet.reconcile")


@dataclass(frozen=True, kw_only=True)
class ReconcileResult:
    """What one pass saw and did."""

    action: Action
    seen: ClusterSnapshot | None = None
    state: dict[str, Any] = field(default_factory=dict)
    """The gate's /state; empty while it does not answer."""
    log: tuple[str, ...] = ()
    """A line for each place that was changed."""


def reconcile(targets: Targets, now: float) -> ReconcileResult:
    """One pass. Does nothing while another reconciler holds the lease, or a place cannot be seen."""
    is_holder = acquire(targets.store, LEASE, targets.holder, now, targets.lease_s)
    state = read_gate(targets.gate_url, targets.gate_token)
    records = targets.ledger.records()  # first: a request that is newer than what we see would compare with it wrongly
    opened = open_request(records)
    try:
        seen = targets.cluster.look()
        if not is_holder:
            return ReconcileResult(action=Action("wait", "another reconciler is at work"), seen=seen, state=state)
        git = targets.values.look(actions.run_id(targets.cluster.canary, opened) if opened else "")
    except (ClusterUnavailable, GitUnavailable) as away:
        return ReconcileResult(action=Action("wait", str(away)), state=state)
    action = decide(_observed(targets, seen, git, records))
    lines: list[str] = []
    if opened is not None and action.kind in EFFECTS:
        why = _why(action, state, opened)
        outcome = actions.Outcome(opened=opened, seen=seen, why=why, evidence=state, now=now)
        try:
            lines = EFFECTS[action.kind](targets.guarded(), outcome)
        except LeaseLost as fenced:
            return ReconcileResult(
                action=Action("wait", f"another reconciler took over: {fenced}"), seen=seen, state=state
            )
    return ReconcileResult(action=action, seen=seen, state=state, log=tuple(lines))


def read_gate(url: str | None, token: str) -> dict[str, Any]:
    """The gate's /state; empty while it does not answer us. It only gives reasons: nothing waits for it."""
    if url is None:
        return {}
    try:
        answer = httpx.get(f"{url}/state", timeout=2, headers=bearer(token))
    except httpx.TransportError:
        return {}
    if answer.status_code == httpx.codes.UNAUTHORIZED:
        log.warning("the gate at %s does not know our token; set %s as it is set there", url, VARIABLE)
    state: dict[str, Any] = answer.json() if answer.status_code == httpx.codes.OK else {}
    return state


def _observed(
    targets: Targets, seen: ClusterSnapshot, git: tuple[AdapterRef, bool], records: Sequence[LedgerRecord]
) -> Observed:
    named, was_named = git
    found = Observed(
        requested=None,
        git=named.digest,
        target=seen.target.digest,
        primary=seen.primary.digest,
        phase=seen.phase,
        canary_weight=seen.canary_weight,
        has_started=False,
        is_settled=seen.last_applied_spec == seen.last_promoted_spec,
    )
    opened = open_request(records)
    if opened is None:
        return found
    return replace(
        found,
        requested=opened.adapter.digest,
        has_started=seen.last_applied_spec != opened.applied_spec or was_seen(targets.store, opened.seq),
        is_aborted=is_aborted(records, opened),
        is_withdrawn=was_named and named.digest != opened.adapter.digest,
        restores=opened.restores,
    )


def _why(action: Action, state: dict[str, Any], opened: LedgerRecord) -> str:
    """The gate's reason where it has one for this release, else ours."""
    if state.get("candidate") != opened.adapter.digest:
        return action.why
    if action.kind == "roll_back":
        return state["rollback"] or f"{action.why}; votes: {state['why']}"
    return state["why"] if action.kind == "promote" else action.why


def run(config: Config, store: Store, once: bool) -> None:
    """One pass, or passes until told to stop. Raises UserError where a place is not configured."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    last: Action | None = None
    with open_targets(config, store) as targets:
        while True:
            last = _pass(targets, last)
            if once:
                return
            time.sleep(config.release_adapter.poll_s)


def _pass(targets: Targets, last: Action | None) -> Action:
    """One pass; what is new is logged."""
    done = reconcile(targets, time.time())
    if done.action != last:
        level = logging.ERROR if done.action.kind == "page" else logging.INFO
        log.log(level, "%s: %s", done.action.kind, done.action.why)
    for line in done.log:
        log.info(line)
    return done.action
