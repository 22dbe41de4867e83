"""The commands that tell beforehand: what the gate would decide, and how a release would go."""

import json
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from ratchet_pipelines.cli.options import AsJson, ConfigFile, settings
from ratchet_pipelines.local_stack import CHART
from ratchet_pipelines.rehearse.faults import FAULTS, fault

Clock = Literal["virtual", "real"]
say = Console(stderr=True, highlight=False)


def add_to(cli: typer.Typer) -> None:
    cli.command("simulate-gate")(simulate_gate)
    cli.command("rehearse")(rehearse)


def simulate_gate(
    config: ConfigFile = None,
    runs: Annotated[int, typer.Option(min=100, help="Simulated canaries for each row of the table.")] = 10_000,
    votes: Annotated[int, typer.Option(min=40, help="Canary votes at which an undecided canary ends.")] = 500,
    weight: Annotated[int, typer.Option(min=1, max=99, help="Percent of traffic on the canary.")] = 20,
    seed: Annotated[int, typer.Option(help="Of the votes.")] = 0,
    out: Annotated[Path | None, typer.Option(help="HTML file to write, with charts.")] = None,
    as_json: AsJson = False,
) -> None:
    """Simulate the gate on your settings: error rates at every look, power and votes, beside other methods."""
    from ratchet.release.simulation import simulate_gate as simulation
    from ratchet.release.simulation.page import page

    with Progress(console=say, disable=not say.is_terminal) as progress:
        task = progress.add_task("simulating", total=simulation.NUM_QUESTIONS)
        gate = settings(config).gate
        found = simulation.simulate(gate, runs, votes, weight, seed, lambda: progress.advance(task))
    if out is not None:
        out.write_text(page(found), encoding="utf-8")
        say.print(f"Charts: {out}")
    if as_json:
        print(json.dumps(simulation.plain(found), indent=1))
        return
    table = Table(box=None)
    for heading in ("question", "truth", "method", "share", "95% interval", "median canary votes"):
        table.add_column(heading, justify="right" if heading in ("share", "median canary votes") else "left")
    for row in found.rows:
        interval, median = f"{row.low:.2%} to {row.high:.2%}", str(row.median_votes or "–")
        table.add_row(row.question, row.truth, row.method, f"{row.share:.2%}", interval, median)
    Console().print(table)
    say.print(
        f"{runs:,} canaries a row, looked at after every block of votes, {votes} canary votes at most; alpha "
        f"{found.alpha:g}, of which a first attempt spends {found.alpha_spent:.4f}; margin {found.margin:g}."
    )


def rehearse(
    config: ConfigFile = None,
    faults: Annotated[
        list[str] | None, typer.Option("--fault", help=f"Once or more: {', '.join(FAULTS)}. All without it.")
    ] = None,
    clock: Annotated[
        Clock, typer.Option(help="virtual: many runs in memory; real: processes, once a fault.")
    ] = "virtual",
    runs: Annotated[int, typer.Option(min=1, help="Rehearsals of each fault on the virtual clock.")] = 20,
    values: Annotated[Path | None, typer.Option(help="Values for the chart, whose Canary is rehearsed.")] = None,
    chart: Annotated[Path, typer.Option(help="The chart.")] = CHART,
    seed: Annotated[int, typer.Option(help="Of the public.")] = 0,
    folder: Annotated[
        Path | None, typer.Option(help="Where the real clock's lakes and logs go; else thrown away.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Rehearse a release: your Canary and gate, with faults to choose; what would happen, and how often."""
    from ratchet_pipelines.rehearse import table

    chosen = {name: fault(name) for name in faults or FAULTS}
    found = (
        table.on_virtual_clock(settings(config), chosen, runs, seed, chart, values)
        if clock == "virtual"
        else table.on_real_clock(settings(config), chosen, folder)
    )
    if as_json:
        print(json.dumps(found, indent=1))
    else:
        Console().print(table.shown(found))
