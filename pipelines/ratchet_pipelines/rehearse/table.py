"""Rehearsals of several faults, counted: how each release ended, how often, after how long, and why."""

import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import yaml
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from ratchet.config import Config
from ratchet.errors import UserError
from ratchet.rehearsal.argo import render
from ratchet.rehearsal.canary_spec import Canary, read_canary
from ratchet_pipelines.rehearse.faults import Fault, Public
from ratchet_pipelines.rehearse.live import rehearse_on_real_clock
from ratchet_pipelines.rehearse.virtual import VirtualClockResult, rehearse_once

INTERVAL_S = 10.0  # Flagger's floor
TIMEOUT_S = 480.0
say = Console(stderr=True, highlight=False)


def on_virtual_clock(
    config: Config, faults: Mapping[str, Fault], runs: int, seed: int, chart: Path, values: Path | None
) -> list[dict[str, Any]]:
    """Many rehearsals of each fault, of the Canary that the chart makes of these values."""
    canary = canary_of(chart, values)
    found = []
    with Progress(console=say, disable=not say.is_terminal) as progress:
        task = progress.add_task("rehearsing", total=runs * len(faults))
        for name, fault in faults.items():
            ends = []
            for number in range(runs):
                ends.append(rehearse_once(canary, config, fault, Public(), seed + number))
                progress.advance(task)
            found.append({"fault": name, "says": fault.says, "runs": runs, **_counted(ends)})
    return found


def on_real_clock(config: Config, faults: Mapping[str, Fault], folder: Path | None) -> list[dict[str, Any]]:
    """One rehearsal of each fault in real processes."""
    found = []
    for name, fault in faults.items():
        say.print(f"{name}: {fault.says} …")
        with tempfile.TemporaryDirectory(prefix="ratchet-rehearse-") as scratch:
            place = folder.absolute() / name if folder else Path(scratch) / name
            lived = rehearse_on_real_clock(config, fault, Public(), place, INTERVAL_S, TIMEOUT_S, _killer(fault))
        for line in lived.log:
            say.print(f"  {line}", style="dim")
        found.append({"fault": name, "says": fault.says, "runs": 1, **_lived(asdict(lived))})
    return found


def canary_of(chart: Path, values: Path | None) -> Canary:
    """The Canary that the chart renders. Raises UserError where it renders none."""
    given = (yaml.safe_load(values.read_text(encoding="utf-8")) or {}) if values else {}
    manifests = render(chart, given, "ratchet")
    found = next((manifest for manifest in manifests if manifest["kind"] == "Canary"), None)
    if found is None:
        raise UserError(f"{chart} renders no Canary; name the chart adapter-router with --chart")
    return read_canary(found)


def shown(found: list[dict[str, Any]]) -> Table:
    table = Table(box=None)
    for heading in ("fault", "runs", "what happens", "minutes", "canary votes", "places agree", "for instance"):
        table.add_column(heading, overflow="fold")
    for row in found:
        ends = ", ".join(f"{outcome} {n}" for outcome, n in row["outcomes"].items())
        cells = (row["minutes"], row["canary_votes"], f"{row['agreed']} of {row['runs']}")
        table.add_row(row["fault"], str(row["runs"]), ends, *map(str, cells), row["why"])
    return table


def _counted(ends: list[VirtualClockResult]) -> dict[str, Any]:
    outcomes = Counter(end.outcome for end in ends)
    commonest = outcomes.most_common(1)[0][0]
    return {
        "outcomes": dict(outcomes.most_common()),
        "minutes": round(median(end.minutes for end in ends), 1),
        "canary_votes": round(median(end.canary_votes for end in ends)),
        "agreed": sum(end.agrees for end in ends),
        "why": next(end.why for end in ends if end.outcome == commonest),
    }


def _lived(lived: dict[str, Any]) -> dict[str, Any]:
    return {
        "outcomes": {lived["outcome"]: 1},
        "minutes": round(lived["seconds"] / 60, 1),
        "canary_votes": lived["canary_votes"],
        "agreed": int(lived["agrees"]),
        "why": lived["why"],
        "verdict_to_agreement_s": lived["verdict_to_agreement_s"],
        "interval_s": lived["interval_s"],
        "restarts": lived["restarts"],
    }


def _killer(fault: Fault) -> Any:
    """Kills the reconciler once, as soon as the gate has a verdict, where the fault says so."""
    killed: list[str] = []

    def on_look(supervisor: Any, state: dict[str, Any]) -> None:
        if fault.kills_reconciler and state.get("rollback") and not killed:
            killed.append("reconciler")
            supervisor.services["reconciler"].kill()

    return on_look
