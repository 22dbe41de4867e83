"""Request an operator's rollback after a promotion: to a version that served before, without a canary.

Flagger does not call the rollback webhook once a canary has ended (flagger#616), so the rollback is a release of its
own: the adapter's keys in Git and `skipAnalysis`, until primary runs it. This module only writes the request into the
ledger; the reconciler carries it out, and completes it after a crash.
"""

from collections.abc import Sequence

from ratchet.adapter_ref import AdapterRef
from ratchet.errors import UserError
from ratchet.release.ledger import (
    Ledger,
    LedgerEntry,
    LedgerRecord,
    close,
    is_aborted,
    open_request,
    quarantined,
    request,
    served_before,
)
from ratchet.release.reconciler.kubernetes import ClusterSnapshot


def request_rollback(
    ledger: Ledger, snapshot: ClusterSnapshot, version: str, who: str, at: float, why: str
) -> LedgerRecord:
    """Open the release that goes back to `version` (`base` or 0: the base model).

    A release that an operator gave up, one whose promotion failed, and a rollback to another version are closed for it.
    Raises UserError for a version that never served, is quarantined or serves already, and while another is open.
    """
    back = _known(ledger, version)
    if back.digest == snapshot.primary.digest:
        raise UserError(f"rollback --to {version}: {back} serves already")
    entry = LedgerEntry(
        event="requested",
        at=at,
        who=who,
        adapter=back,
        baseline=snapshot.primary,
        verdict="pass",  # it served before
        restores=True,
        applied_spec=snapshot.last_applied_spec,
        condition_at=snapshot.condition_at,
        why=why,
    )
    records = ledger.records()
    under_way = open_request(records)
    is_same = under_way is not None and under_way.restores and under_way.adapter.digest == back.digest
    if under_way is not None and not is_same and _is_given_up(records, under_way, snapshot):
        close(ledger, under_way, "refused", at=at, who=who, why=f"an operator goes back to {back} instead: {why}")
    opened = request(ledger, entry)
    if opened is None:
        raise UserError("rollback: a release is under way; `ratchet abort WHY` rolls that one back first")
    return opened


def _is_given_up(records: Sequence[LedgerRecord], opened: LedgerRecord, snapshot: ClusterSnapshot) -> bool:
    is_promotion_failed = snapshot.phase == "Failed" and snapshot.canary_weight == 100
    return opened.restores or is_promotion_failed or is_aborted(records, opened)


def _known(ledger: Ledger, version: str) -> AdapterRef:
    records = ledger.records()
    served = served_before(records)
    number = "0" if version == "base" else version.removeprefix("v")
    if number not in served:
        known = ", ".join(sorted(served)) or "none yet"
        raise UserError(f"rollback --to {version}: that version never served all traffic; those that did: {known}")
    if served[number].digest in quarantined(records):
        raise UserError(f"rollback --to {version}: {served[number]} was rolled back itself and is quarantined")
    return served[number]
