"""Make traffic, registry, Git and ledger agree after a canary: observe, decide, act; one pass at a time.

Effects are idempotent and the ledger record that closes the release comes last, so the next pass, here or on another
machine, completes a pass that died anywhere.
"""

import logging
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ratchet.adapter_ref import BASE_DIGEST, AdapterRef
from ratchet.config import Config
from ratchet.errors import UserError, without_credentials
from ratchet.lease import acquire
from ratchet.release.gate.traffic_log import had_traffic
from ratchet.release.ledger import LedgerRecord, is_aborted, open_request
from ratchet.release.reconciler import actions
from ratchet.release.reconciler.decide import Action, ActionKind, Observed, Revision, decide
from ratchet.release.reconciler.gitops import ReleaseValues
from ratchet.release.reconciler.kubernetes import ClusterSnapshot, ClusterUnavailable
from ratchet.release.reconciler.lease_guard import LeaseLost
from ratchet.release.reconciler.targets import LEASE, Targets, Writers, open_targets
from ratchet.store import Store

EFFECTS: dict[ActionKind, Callable[[Targets, Writers, actions.Outcome], list[str]]] = {
    "skip_analysis": actions.skip_analysis,
    "name_again": actions.name_again,
    "promote": actions.promote,
    "roll_back": actions.roll_back,
    "refuse": actions.refuse,
}
PAGE_AFTER_S = 600.0

if TYPE_CHECKING:
    from ratchet.release.reconciler.health import Health  # its server is only needed by the service

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
    is_blocked: bool = False
    """A place is away, or refuses: nothing could be done."""


def reconcile(targets: Targets, now: float) -> ReconcileResult:
    """Make one pass. Changes nothing while another reconciler holds the lease, or a place does not answer.

    Whatever place is away or refuses, the next pass tries again: this one only says so.
    """
    try:
        return _reconcile(targets, now)
    except LeaseLost as lost:
        return ReconcileResult(action=Action("wait", f"another reconciler took over: {lost}"))
    except (ClusterUnavailable, UserError) as away:
        return ReconcileResult(action=Action("wait", without_credentials(str(away))), is_blocked=True)
    except Exception as error:  # MLflow and S3 have many
        why = without_credentials(f"{type(error).__name__}: {error}")
        log.debug("a place is away", exc_info=True)
        return ReconcileResult(action=Action("wait", why), is_blocked=True)


def _reconcile(targets: Targets, now: float) -> ReconcileResult:
    is_holder = acquire(targets.store, LEASE, targets.holder, now, targets.lease_s, targets.watch)
    state = targets.gate_state()
    # The ledger first: a request newer than the snapshot would be compared with the wrong state.
    records = targets.ledger.records()
    opened = open_request(records)
    snapshot = targets.cluster.look()
    if not is_holder:
        return ReconcileResult(action=Action("wait", "another reconciler is at work"), snapshot=snapshot, state=state)
    git, was_named = targets.values.look(actions.run_id(targets.cluster.canary, opened) if opened else "")
    observed = _observed(snapshot, git)
    if opened is not None:
        observed = replace(
            _with_request(observed, snapshot, opened),
            took_requests=had_traffic(targets.store, opened.seq),
            is_aborted=is_aborted(records, opened),
            is_withdrawn=was_named and git.adapter.digest != opened.adapter.digest,
        )
    action = decide(observed)
    lines: list[str] = []
    if opened is not None and action.kind in EFFECTS:
        outcome = actions.Outcome(
            opened=opened,
            snapshot=snapshot,
            why=_why(action, state, opened),
            evidence=state,
            now=now,
            wanted=opened.adapter if opened.restores or not observed.goes_back else opened.baseline or AdapterRef(),
            nonce=observed.nonce,
            quarantines=observed.took_requests and not opened.restores,
        )
        lines = EFFECTS[action.kind](targets, targets.guarded(), outcome)
    return ReconcileResult(action=action, snapshot=snapshot, state=state, log=tuple(lines))


def _observed(snapshot: ClusterSnapshot, git: ReleaseValues) -> Observed:
    """Return the places, as if no release were under way."""
    return Observed(
        requested=None,
        baseline=BASE_DIGEST,
        git=Revision(git.adapter.digest, git.nonce),
        target=Revision(snapshot.target.digest, snapshot.target_nonce),
        primary=Revision(snapshot.primary.digest, snapshot.primary_nonce),
        nonce="",
        phase=snapshot.phase,
        canary_weight=snapshot.canary_weight,
        weight=snapshot.weight,
        has_started=False,
        has_applied=False,
        took_requests=False,
        is_settled=snapshot.last_applied_spec == snapshot.last_promoted_spec,
        is_primary_up=snapshot.is_primary_up,
        skips_in_git=git.skip_analysis,
        skips=snapshot.skip_analysis,
    )


def _with_request(observed: Observed, snapshot: ClusterSnapshot, opened: LedgerRecord) -> Observed:
    has_applied = snapshot.last_applied_spec != opened.applied_spec
    return replace(
        observed,
        requested=opened.adapter.digest,
        baseline=opened.baseline.digest if opened.baseline else BASE_DIGEST,
        nonce=f"{opened.seq}-{snapshot.last_applied_spec}",
        # A request from before condition_at was recorded has only the hash to go by.
        has_started=snapshot.condition_at != opened.condition_at if opened.condition_at else has_applied,
        has_applied=has_applied,
        restores=opened.restores,
    )


def _why(action: Action, state: dict[str, Any], opened: LedgerRecord) -> str:
    """Return the gate's reason if it has one for this release, else ours."""
    if state.get("candidate") != opened.adapter.digest:
        return action.why
    if action.kind == "roll_back":
        return state["rollback"] or f"{action.why}; votes: {state['why']}"
    return state["why"] if action.kind == "promote" else action.why


def run(config: Config, store: Store, once: bool, health: "Health | None" = None) -> None:
    """Make one pass, or passes until a signal ends the process. Raises UserError for a place that is not configured.

    A place that is away ends nothing: it is waited for, and after PAGE_AFTER_S a person is paged. `health` is told of
    each pass that ends.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    poll_s, watch = config.release_adapter.poll_s, Watch()
    with ExitStack() as stack:
        targets = _opened(stack, config, store, None if once else poll_s, watch)
        while True:
            watch.tell(reconcile(targets, now := time.time()), now)
            if health:
                health.beat()
            if once:
                return
            time.sleep(poll_s)


def _opened(stack: ExitStack, config: Config, store: Store, retry_s: float | None, watch: "Watch") -> Targets:
    """Connect to every place, again and again every `retry_s` seconds; once if None."""
    while True:
        try:
            return stack.enter_context(open_targets(config, store))
        except UserError:  # a setting is missing
            raise
        except Exception as error:  # MLflow is away, and asked for its experiment
            if retry_s is None:
                raise UserError(without_credentials(f"{type(error).__name__}: {error}")) from None
            why = without_credentials(f"{type(error).__name__}: {error}")
            watch.tell(ReconcileResult(action=Action("wait", why), is_blocked=True), time.time())
            time.sleep(retry_s)


@dataclass
class Watch:
    """Logs an action that differs from the last one, and pages for a place that stays away."""

    last: Action | None = None
    blocked_since: float | None = None

    def tell(self, done: ReconcileResult, now: float) -> Action:
        """Return the action as it is logged: a wait that lasts too long is a page."""
        action = done.action
        self.blocked_since = (self.blocked_since or now) if done.is_blocked else None
        if self.blocked_since is not None and now - self.blocked_since >= PAGE_AFTER_S:
            action = Action("page", f"for {PAGE_AFTER_S / 60:g} minutes and more: {action.why}")
        if action != self.last:
            level = logging.ERROR if action.kind in ("page", "refuse") else logging.INFO
            log.log(level, "%s: %s", action.kind, action.why)
        for line in done.log:
            log.info(line)
        self.last = action
        return action
