"""Tabulate rehearsals of several faults: how each release ended, how often, after how long, and why."""

import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import yaml
from rich.progress import Progress
from rich.table import Table

from ratchet.config import Config
from ratchet.errors import UserError
from ratchet.rehearsal.argo import in_waves, merge, render
from ratchet_pipelines.console import say
from ratchet_pipelines.rehearse.faults import Fault, Public
from ratchet_pipelines.rehearse.live import Outside, live_rehearsal
from ratchet_pipelines.rehearse.virtual import VirtualClockResult, rehearse_once
from ratchet_pipelines.rehearse.virtual_cluster import Manifests

INTERVAL_S = 10.0  # Flagger's floor
TIMEOUT_S = 480.0
NO_SECRETS = {"credentials": {"secretName": ""}}  # the cluster in memory holds none


def on_virtual_clock(
    config: Config, faults: Mapping[str, Fault], runs: int, seed: int, chart: Path, values: Path | None
) -> list[dict[str, Any]]:
    """Rehearse each fault `runs` times with the Canary that the chart renders from these values; one row per fault."""
    manifests = manifests_of(chart, values)
    rows = []
    with Progress(console=say, disable=not say.is_terminal) as progress:
        task = progress.add_task("rehearsing", total=runs * len(faults))
        for name, fault in faults.items():
            ends = []
            for number in range(runs):
                ends.append(rehearse_once(manifests, config, fault, Public(), seed + number))
                progress.advance(task)
            rows.append({"fault": name, "says": fault.says, "runs": runs, **_virtual_row(ends)})
    return rows


def on_real_clock(
    config: Config,
    faults: Mapping[str, Fault],
    folder: Path | None,
    pool_url: str | None = None,
    candidate: Path | None = None,
) -> list[dict[str, Any]]:
    """Rehearse each fault once in real processes, before a stub or a pool of yours; one row per fault."""
    rows = []
    for name, fault in faults.items():
        say.print(f"{name}: {fault.says} …")
        with tempfile.TemporaryDirectory(prefix="ratchet-rehearse-") as scratch:
            place = folder.absolute() / name if folder else Path(scratch) / name
            with live_rehearsal(config, fault, Public(), place, INTERVAL_S, Outside(pool_url=pool_url)) as live:
                result = live.release(candidate, TIMEOUT_S, _killer(fault))
        for line in result.log:
            say.print(f"  {line}", style="dim")
        rows.append({"fault": name, "says": fault.says, "runs": 1, **_real_row(asdict(result))})
    return rows


def manifests_of(chart: Path, values: Path | None) -> Manifests:
    """Return the Deployment and the Canary that the chart renders. Raises UserError if it does not render both."""
    given = (yaml.safe_load(values.read_text(encoding="utf-8")) or {}) if values else {}
    applied = [each for wave in in_waves(render(chart, merge(NO_SECRETS, given), "ratchet")) for each in wave]
    rendered = {manifest["kind"]: manifest for manifest in applied}
    if missing := [kind for kind in ("Deployment", "Canary") if kind not in rendered]:
        raise UserError(f"{chart} renders no {missing[0]}; name the chart adapter-router with --chart")
    canary = rendered["Canary"]
    canary["metadata"].setdefault("namespace", "ratchet")
    others = tuple(each for kind, each in rendered.items() if kind not in ("Deployment", "Canary"))
    return Manifests(rendered["Deployment"], canary, others)


def shown(rows: list[dict[str, Any]]) -> Table:
    """Return the rows as a table for the terminal."""
    table = Table(box=None)
    for heading in ("fault", "runs", "what happens", "minutes", "canary votes", "places agree", "for instance"):
        table.add_column(heading, overflow="fold")
    for row in rows:
        ends = ", ".join(f"{outcome} {n}" for outcome, n in row["outcomes"].items())
        cells = (row["minutes"], row["canary_votes"], f"{row['agreed']} of {row['runs']}")
        table.add_row(row["fault"], str(row["runs"]), ends, *map(str, cells), row["why"])
    return table


def _virtual_row(ends: list[VirtualClockResult]) -> dict[str, Any]:
    outcomes = Counter(end.outcome for end in ends)
    commonest = outcomes.most_common(1)[0][0]
    return {
        "outcomes": dict(outcomes.most_common()),
        "minutes": round(median(end.minutes for end in ends), 1),
        "canary_votes": round(median(end.canary_votes for end in ends)),
        "agreed": sum(end.agrees for end in ends),
        "why": next(end.why for end in ends if end.outcome == commonest),
    }


def _real_row(result: dict[str, Any]) -> dict[str, Any]:
    return {
        "outcomes": {result["outcome"]: 1},
        "minutes": round(result["seconds"] / 60, 1),
        "canary_votes": result["canary_votes"],
        "agreed": int(result["agrees"]),
        "why": result["why"],
        "verdict_to_agreement_s": result["verdict_to_agreement_s"],
        "interval_s": result["interval_s"],
        "restarts": result["restarts"],
    }


def _killer(fault: Fault) -> Any:
    """Return an observer that kills what the fault asks for: the reconciler once, at a verdict; the gate for good."""
    killed: list[str] = []
    started = time.monotonic()

    def on_look(supervisor: Any, state: dict[str, Any]) -> None:
        if fault.kills_reconciler and state.get("rollback") and not killed:
            killed.append("reconciler")
            supervisor.services["reconciler"].kill()
        if 0 < fault.gate_minutes * 60 < time.monotonic() - started:
            supervisor.stop("gate")

    return on_look
