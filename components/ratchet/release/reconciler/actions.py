"""Change registry, Git and ledger at the end of a release. Each effect may be repeated; the ledger comes last."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ratchet.adapter_ref import AdapterRef
from ratchet.registry import aliases
from ratchet.release.ledger import EventName, LedgerRecord, close
from ratchet.release.reconciler.kubernetes import ClusterSnapshot
from ratchet.release.reconciler.targets import Targets, Writers

WHO = "reconciler"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How the open release ends, and on what grounds."""

    opened: LedgerRecord
    snapshot: ClusterSnapshot
    why: str
    evidence: dict[str, Any]
    now: float


def run_id(canary: str, opened: LedgerRecord) -> str:
    """Return the key of one canary in Git's history."""
    return f"{canary}/{opened.adapter.digest}/{opened.attempt}"


def restore(targets: Targets, writers: Writers, outcome: Outcome) -> list[str]:
    """Name in Git the adapter that an operator goes back to, for Flagger to take without a canary.

    The release stays open until primary runs that adapter.
    """
    opened = outcome.opened
    commit = writers.values.write_adapter(
        lambda named: opened.adapter,
        f"Go back to adapter {opened.adapter}: {opened.why}",
        run_id(targets.cluster.canary, opened),
        skip_analysis=True,
    )
    return [f"Git: values name {opened.adapter}, without analysis (commit {commit.sha[:10]})"]


def promote(targets: Targets, writers: Writers, outcome: Outcome) -> list[str]:
    """Make the version champion. Git and traffic name it already."""
    opened, version = outcome.opened, outcome.opened.adapter.version
    if opened.restores:
        return _end_restoring(targets, writers, outcome)
    promoted_at = datetime.fromtimestamp(outcome.now, UTC).isoformat(timespec="seconds")
    tags = {"promoted_at": promoted_at, "release": str(opened.seq), "quarantined": "false"}
    aliases.promote(targets.registry, writers.registry, targets.model, version, tags)
    _withdraw_challenger(targets, writers, version)
    _close(targets, outcome, "promoted")
    return [f"registry: champion is {targets.model} version {version}", f"ledger: {opened.adapter} promoted"]


def roll_back(targets: Targets, writers: Writers, outcome: Outcome) -> list[str]:
    """Name in Git what primary runs, and quarantine the version. The champion alias was never moved."""
    opened, back, version = outcome.opened, outcome.snapshot.primary, outcome.opened.adapter.version
    commit = writers.values.write_adapter(
        lambda named: back if named.digest == opened.adapter.digest else None,
        f"Put back adapter {back}: the canary of {opened.adapter} failed",
        run_id(targets.cluster.canary, opened),
        skip_analysis=False if opened.restores else None,
        mark=True,  # a release step that has yet to name the aborted release in Git finds that it is over
    )
    _quarantine(targets, writers, opened.adapter)
    _withdraw_challenger(targets, writers, version)
    _close(targets, outcome, "rolled_back", commit.sha)
    return [
        f"traffic: all on {back}",
        f"Git: values name {back} (commit {commit.sha[:10]})",
        f"registry: {targets.model} version {version} quarantined, champion untouched",
        f"ledger: {opened.adapter} rolled back",
    ]


def refuse(targets: Targets, writers: Writers, outcome: Outcome) -> list[str]:
    """Close the release, and change nothing but `skipAnalysis`: what happened needs a person."""
    if outcome.opened.restores:
        _analyse_again(targets, writers, outcome.opened)
    _close(targets, outcome, "refused")
    return [f"ledger: {outcome.opened.adapter} refused: {outcome.why}"]


def _end_restoring(targets: Targets, writers: Writers, outcome: Outcome) -> list[str]:
    """Move the alias back, quarantine the adapter that was left, and have the next release analysed again."""
    opened, left = outcome.opened, outcome.opened.baseline
    version = None if opened.adapter.is_base else opened.adapter.version
    aliases.restore(targets.registry, writers.registry, targets.model, version)
    if left is not None:
        _quarantine(targets, writers, left)
    _analyse_again(targets, writers, opened)
    _close(targets, outcome, "restored")
    return [f"registry: champion is {opened.adapter}, {left} quarantined", f"ledger: {opened.adapter} restored"]


def _analyse_again(targets: Targets, writers: Writers, opened: LedgerRecord) -> None:
    subject = f"Analyse releases again after going back to {opened.adapter}"
    writers.values.write_adapter(
        lambda named: None, subject, run_id(targets.cluster.canary, opened), skip_analysis=False
    )


def _quarantine(targets: Targets, writers: Writers, adapter: AdapterRef) -> None:
    if not adapter.is_base:  # the base model is in no registry
        writers.registry.set_model_version_tag(targets.model, adapter.version, "quarantined", "true")


def _withdraw_challenger(targets: Targets, writers: Writers, version: str) -> None:
    if aliases.aliases(targets.registry, targets.model).get(aliases.CHALLENGER) == version:
        writers.registry.delete_registered_model_alias(targets.model, aliases.CHALLENGER)


def _close(targets: Targets, outcome: Outcome, event: EventName, commit: str = "") -> None:
    kept = {key: outcome.evidence[key] for key in ("votes", "log_e", "bound", "decision") if key in outcome.evidence}
    close(targets.ledger, outcome.opened, event, at=outcome.now, who=WHO, why=outcome.why, commit=commit, evidence=kept)
