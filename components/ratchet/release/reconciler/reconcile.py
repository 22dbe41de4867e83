"""Make traffic, registry, Git and ledger agree after a canary: observe, decide, act; one pass at a time.

Effects are idempotent and the ledger record that closes the release comes last, so the next pass, here or on another
machine, completes a pass that died anywhere.
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ratchet.adapter_ref import AdapterRef
from ratchet.config import Config
from ratchet.lease import acquire
from ratchet.release.gate.traffic_log import was_seen
from ratchet.release.ledger import LedgerRecord, is_aborted, open_request
from ratchet.release.reconciler import actions
from ratchet.release.reconciler.decide import Action, ActionKind, Observed, decide
from ratchet.release.reconciler.gitops import GitUnavailable
from ratchet.release.reconciler.health import Health
from ratchet.release.reconciler.kubernetes import ClusterSnapshot, ClusterUnavailable
from ratchet.release.reconciler.lease_guard import LeaseLost
from ratchet.release.reconciler.targets import LEASE, Targets, Writers, open_targets
from ratchet.store import Store

EFFECTS: dict[ActionKind, Callable[[Targets, Writers, actions.Outcome], list[str]]] = {
    "restore": actions.restore,
    "promote": actions.promote,
    "roll_back": actions.roll_back,
    "refuse": actions.refuse,
}
log = logging.getLogger("ratchet.reconcile")


@dataclass(frozen=True, kw_only=True)
class ReconcileResult:
    """One pass: the action, the states it read, and the changes it made."""

    action: Action
    snapshot: ClusterSnapshot | None = None
    state: dict[str, Any] = field(default_factory=dict)
    """The gate's /state; empty while it does not answer."""
    log: tuple[str, ...] = ()
    """One line per place that was changed."""


def reconcile(targets: Targets, now: float) -> ReconcileResult:
    """Make one pass. Changes nothing while another reconciler holds the lease, or a place does not answer."""
    is_holder = acquire(targets.store, LEASE, targets.holder, now, targets.lease_s)
    state = targets.gate_state()
    records = (
        targets.ledger.records()
    )  # first: a request newer than the snapshot would be compared with the wrong state
    opened = open_request(records)
    try:
        snapshot = targets.cluster.look()
        if not is_holder:
            return ReconcileResult(
                action=Action("wait", "another reconciler is at work"), snapshot=snapshot, state=state
            )
        git = targets.values.look(actions.run_id(targets.cluster.canary, opened) if opened else "")
    except (ClusterUnavailable, GitUnavailable) as away:
        return ReconcileResult(action=Action("wait", str(away)), state=state)
    action = decide(_observed(targets, snapshot, git, records))
    lines: list[str] = []
    if opened is not None and action.kind in EFFECTS:
        why = _why(action, state, opened)
        outcome = actions.Outcome(opened=opened, snapshot=snapshot, why=why, evidence=state, now=now)
        try:
            lines = EFFECTS[action.kind](targets, targets.guarded(), outcome)
        except LeaseLost as lost:
            return ReconcileResult(
                action=Action("wait", f"another reconciler took over: {lost}"), snapshot=snapshot, state=state
            )
    return ReconcileResult(action=action, snapshot=snapshot, state=state, log=tuple(lines))


def _observed(
    targets: Targets, snapshot: ClusterSnapshot, git: tuple[AdapterRef, bool], records: Sequence[LedgerRecord]
) -> Observed:
    named, was_named = git
    observed = Observed(
        requested=None,
        git=named.digest,
        target=snapshot.target.digest,
        primary=snapshot.primary.digest,
        phase=snapshot.phase,
        canary_weight=snapshot.canary_weight,
        has_started=False,
        is_settled=snapshot.last_applied_spec == snapshot.last_promoted_spec,
    )
    opened = open_request(records)
    if opened is None:
        return observed
    return replace(
        observed,
        requested=opened.adapter.digest,
        has_started=snapshot.last_applied_spec != opened.applied_spec or was_seen(targets.store, opened.seq),
        is_aborted=is_aborted(records, opened),
        is_withdrawn=was_named and named.digest != opened.adapter.digest,
        restores=opened.restores,
    )


def _why(action: Action, state: dict[str, Any], opened: LedgerRecord) -> str:
    """Return the gate's reason if it has one for this release, else ours."""
    if state.get("candidate") != opened.adapter.digest:
        return action.why
    if action.kind == "roll_back":
        return state["rollback"] or f"{action.why}; votes: {state['why']}"
    return state["why"] if action.kind == "promote" else action.why


def run(config: Config, store: Store, once: bool, health: Health | None = None) -> None:
    """Make one pass, or passes until a signal ends the process. Raises UserError for a place that is not configured.

    `health` is told of each pass that ends.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    last: Action | None = None
    with open_targets(config, store) as targets:
        while True:
            last = _pass(targets, last)
            if health:
                health.beat()
            if once:
                return
            time.sleep(config.release_adapter.poll_s)


def _pass(targets: Targets, last: Action | None) -> Action:
    """Make one pass, and log an action that differs from the last one."""
    done = reconcile(targets, time.time())
    if done.action != last:
        level = logging.ERROR if done.action.kind == "page" else logging.INFO
        log.log(level, "%s: %s", done.action.kind, done.action.why)
    for line in done.log:
        log.info(line)
    return done.action
