"""`ratchet rehearse` and `ratchet simulate-gate`: how a release would go, and how often the gate would err."""

import json
from pathlib import Path
from typing import Annotated, Literal, get_args

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from ratchet.errors import UserError
from ratchet_pipelines.cli.options import OUT_FILE, OUT_FOLDER, AsJson, ConfigFile, Seed, one_of, settings
from ratchet_pipelines.console import say
from ratchet_pipelines.rehearse.faults import FAULTS

Clock = Literal["virtual", "real"]


def simulate_gate(
    config: ConfigFile = None,
    runs: Annotated[int, typer.Option(min=100, help="Simulated canaries for each row of the table.")] = 10_000,
    votes: Annotated[int, typer.Option(min=40, help="Canary votes after which an undecided canary ends.")] = 400,
    canary_weight: Annotated[int, typer.Option(min=1, max=99, help="Percent of traffic on the canary.")] = 20,
    seed: Seed = None,
    out: Annotated[Path | None, OUT_FILE] = None,
    as_json: AsJson = False,
) -> None:
    """Simulate the gate with your settings: error rates, power and votes needed, compared with other methods."""
    from ratchet.release.simulation import simulate_gate as simulation
    from ratchet.release.simulation.html_page import page

    whole = settings(config)
    with Progress(console=say, disable=not say.is_terminal) as progress:
        task = progress.add_task("simulating", total=simulation.num_scenarios(whole.gate))
        study = simulation.simulate(
            whole.gate, runs, votes, canary_weight, whole.seed if seed is None else seed, lambda: progress.advance(task)
        )
    if out is not None:
        out.write_text(page(study), encoding="utf-8")
        say.print(f"Charts: {out}")
    if as_json:
        print(json.dumps(simulation.plain(study), indent=1))
        return
    table = Table(box=None)
    for heading in ("canary", "method", "decision", "share", "95% interval", "median votes, or hours"):
        table.add_column(heading, justify="right" if heading in ("share", "median votes, or hours") else "left")
    for row in study.rows:
        interval, median = f"{row.low:.2%} to {row.high:.2%}", simulation.median_of(row)
        table.add_row(row.name, row.method, simulation.decision_of(row), f"{row.share:.2%}", interval, median)
    Console().print(table)
    say.print(
        f"{runs:,} canaries a row, looked at after every stratum of votes, {votes} canary votes at most where a row "
        f"does not say otherwise; alpha {study.alpha:g}, of which a first attempt spends {study.alpha_spent:.4f}; "
        f"margin {study.margin:g}."
    )


def rehearse(
    config: ConfigFile = None,
    faults: Annotated[
        list[str] | None,
        typer.Option(
            "--fault",
            help=f"{', '.join(FAULTS)}. Repeatable; all without it.",
            **one_of("fault", lambda: FAULTS, is_listed=False),
        ),
    ] = None,
    clock: Annotated[
        Clock,
        typer.Option(
            help="virtual: many runs in memory; real: processes, one run of each fault.",
            **one_of("clock", lambda: get_args(Clock)),
        ),
    ] = "virtual",
    runs: Annotated[int, typer.Option(min=1, help="Rehearsals of each fault on the virtual clock.")] = 20,
    values: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Values for the chart's Canary.", exists=True, dir_okay=False),
    ] = None,
    chart: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Chart; adapter-router without it.", exists=True, file_okay=False),
    ] = None,
    pool_url: Annotated[
        str | None,
        typer.Option("--pool", metavar="URL", help="A model pool that runs already, instead of a stub: vLLM, say."),
    ] = None,
    candidate: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="The adapter to release to that pool.", exists=True, file_okay=False),
    ] = None,
    seed: Seed = None,
    out: Annotated[Path | None, OUT_FOLDER] = None,
    as_json: AsJson = False,
) -> None:
    """Rehearse a release with your Canary and gate, under chosen faults: what happens, and how often.

    On the real clock, --out keeps the lakes and logs. A --pool of your own answers as it does: faults of answers are
    the stub's.
    """
    from ratchet_pipelines.local_stack import CHART
    from ratchet_pipelines.rehearse import table

    if out is not None and clock == "virtual":
        raise UserError("--out: rehearsals on the virtual clock leave no files; choose --clock real")
    if (pool_url is None) != (candidate is None) or (pool_url is not None and clock == "virtual"):
        raise UserError("--pool and --candidate go together, and with --clock real: give both, or neither")
    names = faults or (["none"] if pool_url else FAULTS)
    whole, chosen = settings(config), {name: FAULTS[name] for name in names}
    study = (
        table.on_virtual_clock(whole, chosen, runs, whole.seed if seed is None else seed, chart or CHART, values)
        if clock == "virtual"
        else table.on_real_clock(whole, chosen, out, pool_url, candidate)
    )
    if as_json:
        print(json.dumps(study, indent=1))
    else:
        Console().print(table.shown(study))
