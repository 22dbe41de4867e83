"""What the reconciler changes, place by place. Each effect may be repeated; the closing ledger record comes last."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ratchet.adapter_ref import AdapterRef
from ratchet.registry import aliases
from ratchet.release.ledger import EventName, LedgerRecord, close
from ratchet.release.reconciler.kubernetes import ClusterSnapshot
from ratchet.release.reconciler.targets import Targets

WHO = "reconciler"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How the open release ends, and on what grounds."""

    opened: LedgerRecord
    seen: ClusterSnapshot
    why: str
    evidence: dict[str, Any]
    now: float


def run_id(canary: str, opened: LedgerRecord) -> str:
    """The key of one canary in Git's history."""
    return f"{canary}/{opened.adapter.digest}/{opened.attempt}"


def restore(targets: Targets, outcome: Outcome) -> list[str]:
    """Git names what served before, and Flagger takes it without a canary. The release stays open."""
    opened = outcome.opened
    commit = targets.values.write_adapter(
        lambda named: opened.adapter,
        f"Go back to adapter {opened.adapter}: {opened.why}",
        run_id(targets.cluster.canary, opened),
        skip_analysis=True,
    )
    return [f"Git: values name {opened.adapter}, without analysis (commit {commit.sha[:10]})"]


def promote(targets: Targets, outcome: Outcome) -> list[str]:
    """The version becomes champion. Git and traffic name it already."""
    opened, version = outcome.opened, outcome.opened.adapter.version
    if opened.restores:
        return _end_restoring(targets, outcome)
    tags = {"promoted_at": _iso(outcome.now), "release": str(opened.seq), "quarantined": "false"}
    aliases.promote(targets.registry, targets.model, version, tags)
    _withdraw_challenger(targets, version)
    _close(targets, outcome, "promoted")
    return [f"registry: champion is {targets.model} version {version}", f"ledger: {opened.adapter} promoted"]


def roll_back(targets: Targets, outcome: Outcome) -> list[str]:
    """Git names again what primary runs, and the version is quarantined. The champion was never touched."""
    opened, back, version = outcome.opened, outcome.seen.primary, outcome.opened.adapter.version
    commit = targets.values.write_adapter(
        lambda named: back if named.digest == opened.adapter.digest else None,
        f"Put back adapter {back}: the canary of {opened.adapter} failed",
        run_id(targets.cluster.canary, opened),
        skip_analysis=False if opened.restores else None,
        mark=True,  # whoever is about to name a release that was aborted first finds that it is over
    )
    _quarantine(targets, opened.adapter)
    _withdraw_challenger(targets, version)
    _close(targets, outcome, "rolled_back", commit.sha)
    return [
        f"traffic: all on {back}",
        f"Git: values name {back} (commit {commit.sha[:10]})",
        f"registry: {targets.model} version {version} quarantined, champion untouched",
        f"ledger: {opened.adapter} rolled back",
    ]


def refuse(targets: Targets, outcome: Outcome) -> list[str]:
    """Close the release without touching anything but the leave to skip analysis: what happened needs a person."""
    if outcome.opened.restores:
        _analyse_again(targets, outcome.opened)
    _close(targets, outcome, "refused")
    return [f"ledger: {outcome.opened.adapter} refused: {outcome.why}"]


def _end_restoring(targets: Targets, outcome: Outcome) -> list[str]:
    """What was gone back from is quarantined, and the next release is analysed again."""
    opened, left = outcome.opened, outcome.opened.baseline
    version = None if opened.adapter.is_base else opened.adapter.version
    aliases.restore(targets.registry, targets.model, version)
    if left is not None:
        _quarantine(targets, left)
    _analyse_again(targets, opened)
    _close(targets, outcome, "restored")
    return [f"registry: champion is {opened.adapter}, {left} quarantined", f"ledger: {opened.adapter} restored"]


def _analyse_again(targets: Targets, opened: LedgerRecord) -> None:
    subject = f"Analyse releases again after going back to {opened.adapter}"
    targets.values.write_adapter(
        lambda named: None, subject, run_id(targets.cluster.canary, opened), skip_analysis=False
    )


def _quarantine(targets: Targets, adapter: AdapterRef) -> None:
    if not adapter.is_base:  # the base model is in no registry
        targets.registry.set_model_version_tag(targets.model, adapter.version, "quarantined", "true")


def _withdraw_challenger(targets: Targets, version: str) -> None:
    if aliases.aliases(targets.registry, targets.model).get(aliases.CHALLENGER) == version:
        targets.registry.delete_registered_model_alias(targets.model, aliases.CHALLENGER)


def _close(targets: Targets, outcome: Outcome, event: EventName, commit: str = "") -> None:
    kept = {key: outcome.evidence[key] for key in ("votes", "log_e", "bound", "decision") if key in outcome.evidence}
    close(targets.ledger, outcome.opened, event, at=outcome.now, who=WHO, why=outcome.why, commit=commit, evidence=kept)


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
