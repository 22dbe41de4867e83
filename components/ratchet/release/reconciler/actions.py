"""Change registry, Git and ledger at the end of a release. Each effect may be repeated; the ledger comes last."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from ratchet.adapter_ref import AdapterRef
from ratchet.registry import aliases
from ratchet.release.ledger import EventName, LedgerRecord, close
from ratchet.release.reconciler.gitops import Commit, DecideValues, ReleaseValues
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
    wanted: AdapterRef
    """The adapter that all places are to name: the requested one, or the one that is gone back to."""
    nonce: str
    """Of the next revision of it."""
    quarantines: bool
    """Whether a rollback quarantines: the canary of an ordinary release took requests."""


def run_id(canary: str, opened: LedgerRecord) -> str:
    """Return the key of one canary in Git's history."""
    return f"{canary}/{opened.adapter.digest}/{opened.attempt}"


def first_values(opened: LedgerRecord) -> ReleaseValues:
    """Return the values that start a release. A second attempt has a nonce: else Flagger may know its revision."""
    return ReleaseValues(opened.adapter, nonce="" if opened.attempt <= 1 else f"attempt-{opened.attempt}")


def skip_analysis(targets: Targets, writers: Writers, outcome: Outcome) -> list[str]:
    """Have Flagger promote without a canary, in a commit that changes nothing else."""
    subject = f"Skip the analysis, to go back to what served: {outcome.why}"
    commit = _write(targets, writers, outcome, lambda now: replace(now, skip_analysis=True), subject)
    return [f"Git: values skip the analysis (commit {commit.sha[:10]})"]


def name_again(targets: Targets, writers: Writers, outcome: Outcome) -> list[str]:
    """Name the adapter in Git as a revision that Flagger has never seen: under a new nonce.

    The release stays open until primary runs that adapter.
    """
    wanted, nonce = outcome.wanted, outcome.nonce

    def name(now: ReleaseValues) -> ReleaseValues:
        is_ours = now.skip_analysis or now.adapter.digest == wanted.digest  # else somebody pushed another meanwhile
        return replace(now, adapter=wanted, nonce=nonce) if is_ours else now

    commit = _write(targets, writers, outcome, name, f"Serve adapter {wanted}: {outcome.why}")
    return [f"Git: values name {wanted} under the nonce {nonce} (commit {commit.sha[:10]})"]


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
    """Name in Git what primary runs. Quarantine the version if it took requests; the champion alias was never moved."""
    opened, snapshot, version = outcome.opened, outcome.snapshot, outcome.opened.adapter.version
    back = snapshot.primary

    def put_back(now: ReleaseValues) -> ReleaseValues:
        is_ours = now.adapter.digest == opened.adapter.digest
        # The nonce, too: only primary's own template is no change to Flagger.
        serving = replace(now, adapter=back, nonce=snapshot.primary_nonce) if is_ours else now
        return replace(serving, skip_analysis=False)

    subject = f"Put back adapter {back}: the canary of {opened.adapter} failed"
    # Marked: a release step that has yet to name the aborted release in Git finds that it is over.
    commit = _write(targets, writers, outcome, put_back, subject, mark=True)
    if outcome.quarantines:
        _quarantine(targets, writers, opened.adapter)
    _withdraw_challenger(targets, writers, version)
    _close(targets, outcome, "rolled_back", commit.sha, quarantines=outcome.quarantines)
    verdict = "quarantined" if outcome.quarantines else "took no requests and may be released again"
    return [
        f"traffic: all on {back}",
        f"Git: values name {back} (commit {commit.sha[:10]})",
        f"registry: {targets.model} version {version} {verdict}, champion untouched",
        f"ledger: {opened.adapter} rolled back",
    ]


def refuse(targets: Targets, writers: Writers, outcome: Outcome) -> list[str]:
    """Close the release, and change nothing but `skipAnalysis`: what happened needs a person."""
    _analyse_again(targets, writers, outcome)
    _close(targets, outcome, "refused")
    return [f"ledger: {outcome.opened.adapter} refused: {outcome.why}"]


def _end_restoring(targets: Targets, writers: Writers, outcome: Outcome) -> list[str]:
    """Move the alias back, quarantine the adapter that was left, and have the next release analysed again."""
    opened, left = outcome.opened, outcome.opened.baseline
    version = None if opened.adapter.is_base else opened.adapter.version
    aliases.restore(targets.registry, writers.registry, targets.model, version)
    if left is not None:
        _quarantine(targets, writers, left)
    _analyse_again(targets, writers, outcome)
    _close(targets, outcome, "restored")
    return [f"registry: champion is {opened.adapter}, {left} quarantined", f"ledger: {opened.adapter} restored"]


def _analyse_again(targets: Targets, writers: Writers, outcome: Outcome) -> None:
    subject = f"Analyse releases again after {outcome.opened.adapter}"
    _write(targets, writers, outcome, lambda now: replace(now, skip_analysis=False), subject)


def _write(
    targets: Targets, writers: Writers, outcome: Outcome, decide: DecideValues, subject: str, mark: bool = False
) -> Commit:
    return writers.values.write(decide, subject, run_id(targets.cluster.canary, outcome.opened), mark)


def _quarantine(targets: Targets, writers: Writers, adapter: AdapterRef) -> None:
    if not adapter.is_base:  # the base model is in no registry
        writers.registry.set_model_version_tag(targets.model, adapter.version, "quarantined", "true")


def _withdraw_challenger(targets: Targets, writers: Writers, version: str) -> None:
    if aliases.aliases(targets.registry, targets.model).get(aliases.CHALLENGER) == version:
        writers.registry.delete_registered_model_alias(targets.model, aliases.CHALLENGER)


def _close(targets: Targets, outcome: Outcome, event: EventName, commit: str = "", quarantines: bool = True) -> None:
    kept = {key: outcome.evidence[key] for key in ("votes", "log_e", "bound", "decision") if key in outcome.evidence}
    details = {"commit": commit, "evidence": kept, "quarantines": quarantines}
    close(targets.ledger, outcome.opened, event, at=outcome.now, who=WHO, why=outcome.why, **details)
