"""The command line `ratchet`: one command a step, the whole loop, and the services.

Exit codes: 0 done; 2 something outside the code must be mended (said on stderr); 1 a bug.
"""

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from ratchet.config import load_config
from ratchet.errors import UserError
from ratchet.manifest import Manifest
from ratchet.step import Step, assist_step, read_manifest, run_step, share_step
from ratchet.store import Store, open_lake, open_store
from ratchet_pipelines.cli import compile, lineage, quarantine, rehearse, releases, services
from ratchet_pipelines.cli.calibrate_judge import calibrate_judge
from ratchet_pipelines.cli.error_rates import error_rates
from ratchet_pipelines.cli.importing import import_
from ratchet_pipelines.cli.lake import lake_app
from ratchet_pipelines.cli.options import AsJson, ConfigFile, Lake, settings
from ratchet_pipelines.console import announce, guarded, say
from ratchet_pipelines.profiles import profile_path
from ratchet_pipelines.result import write_result

app = typer.Typer(
    help="From users' votes to LoRA adapters that only move forward.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("import")(import_)


@app.command()
def run(
    lake: Lake = "lake",
    config: ConfigFile = None,
    as_json: AsJson = False,
    until: Annotated[str | None, typer.Option(help="Stop after this step.")] = None,
) -> None:
    """Run the loop: from the lake's events to a registered adapter, a verdict, and a release if one is configured."""
    from ratchet_pipelines.graph import STEPS
    from ratchet_pipelines.loop import run_loop, summarize

    names = [step.name for step in STEPS]
    if until is not None and until not in names:
        raise UserError(f"--until {until}: no such step; steps are {', '.join(names)}")
    last = names.index(until) + 1 if until else len(names)
    done = run_loop(settings(config), open_store(lake), announce, STEPS[:last])
    if not any(ran.is_new for ran in done.values()):
        say.print("Nothing to do: every step's result was there already.")
    if as_json:
        print(json.dumps(summarize(done), indent=1))


@app.command()
def plan(
    given: Annotated[list[str], typer.Option("--in", help="build_datasets=MANIFEST, as for `train_adapter`.")],
    lake: Lake = "lake",
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Say what train_adapter would do: rows, tokens, steps, lengths, memory. Trains nothing."""
    from ratchet.training.train_adapter import plan_training

    store = open_store(lake)
    planned = plan_training(settings(config), _read_inputs(store, given), store)
    if as_json:
        print(json.dumps(planned, indent=1))
        return
    for name, phase in planned["phases"].items():
        told = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in phase.items())
        say.print(f"{name}: {told}", markup=False)
    say.print(f"dropped: {planned['drops']}; memory about {planned['memory_mib']:,} MiB", markup=False)


@app.command()
def merge(
    given: Annotated[list[str], typer.Option("--in", help="MANIFEST of train_adapter, two or more times.")],
    weight: Annotated[list[float] | None, typer.Option(help="One for each adapter; equal without it.")] = None,
    method: Annotated[str, typer.Option(help="PEFT's: svd, linear, ties, dare_linear, dare_ties, …_svd.")] = "svd",
    lake: Lake = "lake",
    config: ConfigFile = None,
) -> None:
    """Merge adapters of one base model and rank into a candidate. Prints its manifest's URI, for evaluate_adapter."""
    from ratchet.training.merge import merge as merge_adapters

    store = open_store(lake)
    adapters = [read_manifest(store, uri) for uri in given]
    weights = weight or [1 / len(given)] * len(given)
    print(merge_adapters(settings(config), adapters, weights, method, store).manifest.uri)


@app.command()
def profile(name: Annotated[str, typer.Argument(help="local, demo or gpu")]) -> None:
    """Print a whole ratchet.yaml to start from."""
    print(profile_path(name).read_text(encoding="utf-8"), end="")


@app.command()
def demo(
    lake: Annotated[Path, typer.Option(help="Where the demo lives; created.")] = Path("demo"),
    seed: Annotated[int, typer.Option(help="Another seed, another path to the same end.")] = 0,
) -> None:
    """Watch votes become a better adapter, and a bad adapter rolled back everywhere. Ends with a report."""
    from ratchet_pipelines.demo.acts import play

    play(lake, seed, load_config(profile_path("demo")))


@app.command()
def report(
    lake: Lake = "lake", out: Annotated[Path, typer.Option(help="HTML file to write.")] = Path("report.html")
) -> None:
    """Write one self-contained HTML page on the latest run: data, training, evaluation, canary, ledger."""
    from ratchet_pipelines.report import report_latest

    report_latest(open_lake(lake), out)
    say.print(f"Report: {out}")


def _add_step(step: Step) -> None:
    """One command a step, the contract that every orchestrator uses: manifests in, one manifest out."""

    def command(
        lake: Lake = "lake",
        config: ConfigFile = None,
        given: Annotated[
            list[str] | None, typer.Option("--in", help="STEP=MANIFEST for each input; URIs are relative to the lake.")
        ] = None,
        out: Annotated[
            Path | None,
            typer.Option(help="A folder for what an orchestrator reads: manifest.json, return.json, uri, decision."),
        ] = None,
        share: Annotated[
            str | None,
            typer.Option(
                metavar="I/N", help="Of every N-th part, from the I-th on, make what is missing; publish nothing."
            ),
        ] = None,
    ) -> None:
        store = open_store(lake)
        if share is not None:
            number, of = _share(share)
            num_made = share_step(step, settings(config), _read_inputs(store, given or []), store, number, of)
            say.print(f"{step.name}: share {share}, {num_made} parts made")
            return
        if os.environ.get("RANK", "0") != "0":  # `accelerate launch` started this process beside the first
            assist_step(step, settings(config), _read_inputs(store, given or []), store)
            return
        ran = run_step(step, settings(config), _read_inputs(store, given or []), store)
        announce(step, ran)
        if out is not None:
            write_result(ran, out)
        print(ran.manifest.uri)

    needs = f" Reads: {', '.join(step.inputs)}." if step.inputs else ""
    doc = (sys.modules[step.run.__module__].__doc__ or "").strip().splitlines()[0]
    app.command(step.name, help=f"Step: {doc}{needs} Prints the manifest's URI.")(command)


def _read_inputs(store: Store, given: list[str]) -> dict[str, Manifest]:
    inputs = {}
    for pair in given:
        name, _, uri = pair.partition("=")
        if not uri:
            raise UserError(f"--in {pair}: write STEP=MANIFEST")
        inputs[name] = read_manifest(store, uri)
    return inputs


def _share(text: str) -> tuple[int, int]:
    """I and N of `I/N`, counted from 1."""
    number, _, of = text.partition("/")
    if not (number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of)):
        raise UserError(f"--share {text}: write I/N, as 1/4 for the first of four shares")
    return int(number), int(of)


def main() -> None:
    from ratchet_pipelines.graph import STEPS

    for step in STEPS:
        _add_step(step)
    services.add_to(app)
    releases.add_to(app)
    rehearse.add_to(app)
    lineage.add_to(app)
    for command in (error_rates, calibrate_judge):
        app.command(command.__name__.replace("_", "-"))(command)
    app.add_typer(compile.app)
    app.add_typer(lake_app)
    app.add_typer(quarantine.app)
    guarded(app)


if __name__ == "__main__":
    main()
