"""What the reconciler changes, place by place. Each effect may be repeated; the closing ledger record comes last."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ratchet.adapter_ref import AdapterRef
from ratchet.registry import aliases
from ratchet.release.ledger import EventName, Record, close
from ratchet.release.reconciler.kubernetes import Seen
from ratchet.release.reconciler.targets import World

WHO = "reconciler"


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How the open release ends, and on what grounds."""

    opened: Record
    seen: Seen
    why: str
    evidence: dict[str, Any]
    now: float


def run_id(canary: str, opened: Record) -> str:
    """The key of one canary in Git's history."""
    return f"{canary}/{opened.adapter.digest}/{opened.attempt}"


def restore(world: World, ending: Ending) -> list[str]:
    """Git names what served before, and Flagger takes it without a canary. The release stays open."""
    opened = ending.opened
    commit = world.values.write_adapter(
        lambda named: opened.adapter,
        f"Go back to adapter {opened.adapter}: {opened.why}",
        run_id(world.cluster.canary, opened),
        skip_analysis=True,
    )
    return [f"Git: values name {opened.adapter}, without analysis (commit {commit.sha[:10]})"]


def promote(world: World, ending: Ending) -> list[str]:
    """The version becomes champion. Git and traffic name it already."""
    opened, version = ending.opened, ending.opened.adapter.version
    if opened.restores:
        return _end_restoring(world, ending)
    tags = {"promoted_at": _iso(ending.now), "release": str(opened.seq), "quarantined": "false"}
    aliases.promote(world.registry, world.model, version, tags)
    _withdraw_challenger(world, version)
    _close(world, ending, "promoted")
    return [f"registry: champion is {world.model} version {version}", f"ledger: {opened.adapter} promoted"]


def roll_back(world: World, ending: Ending) -> list[str]:
    """Git names again what primary runs, and the version is quarantined. The champion was never touched."""
    opened, back, version = ending.opened, ending.seen.primary, ending.opened.adapter.version
    commit = world.values.write_adapter(
        lambda named: back if named.digest == opened.adapter.digest else None,
        f"Put back adapter {back}: the canary of {opened.adapter} failed",
        run_id(world.cluster.canary, opened),
        skip_analysis=False if opened.restores else None,
        mark=True,  # whoever is about to name a release that was aborted first finds that it is over
    )
    _quarantine(world, opened.adapter)
    _withdraw_challenger(world, version)
    _close(world, ending, "rolled_back", commit.sha)
    return [
        f"traffic: all on {back}",
        f"Git: values name {back} (commit {commit.sha[:10]})",
        f"registry: {world.model} version {version} quarantined, champion untouched",
        f"ledger: {opened.adapter} rolled back",
    ]


def refuse(world: World, ending: Ending) -> list[str]:
    """Close the release without touching anything but the leave to skip analysis: what happened needs a person."""
    if ending.opened.restores:
        _analyse_again(world, ending.opened)
    _close(world, ending, "refused")
    return [f"ledger: {ending.opened.adapter} refused: {ending.why}"]


def _end_restoring(world: World, ending: Ending) -> list[str]:
    """What was gone back from is quarantined, and the next release is analysed again."""
    opened, left = ending.opened, ending.opened.baseline
    version = None if opened.adapter.digest == AdapterRef().digest else opened.adapter.version
    aliases.restore(world.registry, world.model, version)
    if left is not None:
        _quarantine(world, left)
    _analyse_again(world, opened)
    _close(world, ending, "promoted")
    return [f"registry: champion is {opened.adapter}, {left} quarantined", f"ledger: {opened.adapter} restored"]


def _analyse_again(world: World, opened: Record) -> None:
    subject = f"Analyse releases again after going back to {opened.adapter}"
    world.values.write_adapter(lambda named: None, subject, run_id(world.cluster.canary, opened), skip_analysis=False)


def _quarantine(world: World, adapter: AdapterRef) -> None:
    if adapter.digest != AdapterRef().digest:  # the base model is in no registry
        world.registry.set_model_version_tag(world.model, adapter.version, "quarantined", "true")


def _withdraw_challenger(world: World, version: str) -> None:
    if aliases.aliases(world.registry, world.model).get(aliases.CHALLENGER) == version:
        world.registry.delete_registered_model_alias(world.model, aliases.CHALLENGER)


def _close(world: World, ending: Ending, event: EventName, commit: str = "") -> None:
    kept = {key: ending.evidence[key] for key in ("votes", "log_e", "bound", "decision") if key in ending.evidence}
    close(world.ledger, ending.opened, event, at=ending.now, who=WHO, why=ending.why, commit=commit, evidence=kept)


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
