"""The commands around a run of the loop: run it, estimate it, merge adapters, demonstrate it, report on it."""

import json
import time
from pathlib import Path
from typing import Annotated

import typer

from ratchet.config import load_config
from ratchet.errors import UserError
from ratchet.scheduler_claim import claim
from ratchet.store import open_lake, open_store
from ratchet_pipelines.cli.options import (
    OUT_FILE,
    AsJson,
    ConfigFile,
    Inputs,
    Lake,
    Scheduler,
    Seed,
    one_of,
    settings,
    step_names,
    writable_folder,
)
from ratchet_pipelines.cli.steps import read_input, read_inputs
from ratchet_pipelines.console import announce, say
from ratchet_pipelines.profiles import profile_path


def _merge_methods() -> tuple[str, ...]:
    from ratchet.training.merge import METHODS

    return METHODS


def run(
    lake: Lake = "lake",
    config: ConfigFile = None,
    as_json: AsJson = False,
    until: Annotated[
        str | None, typer.Option(help="Stop after this step.", **one_of("step", step_names, is_listed=False))
    ] = None,
    scheduler: Scheduler = "",
) -> None:
    """Run the seven steps in order, from the lake's events to a registered adapter and, if configured, its release.

    A step whose result is in the lake already is not run again.
    """
    from ratchet_pipelines.graph import STEPS
    from ratchet_pipelines.loop import run_loop, summarize

    last = step_names().index(until) + 1 if until else len(STEPS)
    store = open_store(lake)
    if scheduler:
        claim(store, scheduler, time.time())
    done = run_loop(settings(config), store, announce, STEPS[:last])
    if not any(ran.is_new for ran in done.values()):
        say.print("Nothing to do: every step's result was there already.")
    if as_json:
        print(json.dumps(summarize(done), indent=1))


def plan(
    given: Inputs = None,
    lake: Lake = "lake",
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Estimate a training without running it: rows, tokens, steps, lengths, memory.

    Needs the inputs of train-adapter: --in build-datasets=MANIFEST.
    """
    from ratchet.training.train_adapter import plan_training

    store = open_store(lake)
    inputs = read_inputs(store, given or [])
    if list(inputs) != ["build_datasets"]:
        raise UserError(f"plan: takes --in build-datasets=MANIFEST; given {', '.join(given or []) or 'nothing'}")
    planned = plan_training(settings(config), inputs, store)
    if as_json:
        print(json.dumps(planned, indent=1))
        return
    for name, phase in planned["phases"].items():
        sizes = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in phase.items())
        print(f"{name}: {sizes}")
    print(f"dropped: {planned['drops']}; memory about {planned['memory_mib']:,} MiB")


def merge(
    given: Inputs = None,
    weight: Annotated[
        list[float] | None, typer.Option(help="Weight of an adapter, once for each in order; equal without it.")
    ] = None,
    method: Annotated[
        str,
        typer.Option(
            help="PEFT's method: svd, linear, ties, dare_linear, dare_ties, or one of the last three with _svd.",
            **one_of("method", _merge_methods, is_listed=False),
        ),
    ] = "svd",
    lake: Lake = "lake",
    config: ConfigFile = None,
) -> None:
    """Merge adapters of one base model and rank into a candidate.

    Needs --in train-adapter=MANIFEST two or more times. Prints the URI of its manifest, for evaluate-adapter.
    """
    from ratchet.training.merge import merge as merge_adapters

    store = open_store(lake)
    inputs = [read_input(store, pair) for pair in given or []]
    if len(inputs) < 2 or any(name != "train_adapter" for name, _ in inputs):
        raise UserError("merge: takes --in train-adapter=MANIFEST two or more times, and no other input")
    weights = weight or [1 / len(inputs)] * len(inputs)
    adapters = [manifest for _, manifest in inputs]
    print(merge_adapters(settings(config), adapters, weights, method, store).manifest.uri)


def demo(
    lake: Annotated[
        Path,
        typer.Option(
            metavar="FOLDER", help="Folder for the demo's lakes; created.", file_okay=False, callback=writable_folder
        ),
    ] = Path("demo"),
    seed: Seed = None,
) -> None:
    """Show the loop on this machine: votes become a better adapter, and a bad adapter is rolled back everywhere.

    Ends with a report in HTML. Another seed gives other votes and the same end.
    """
    from ratchet_pipelines.demo.acts import play

    config = load_config(profile_path("demo"))
    play(lake, config.seed if seed is None else seed, config)


def report(lake: Lake = "lake", out: Annotated[Path, OUT_FILE] = Path("report.html")) -> None:
    """Write a self-contained HTML page on the latest run: data, training, evaluation, canary, ledger."""
    from ratchet_pipelines.report import report_latest

    report_latest(open_lake(lake), out)
    say.print(f"Report: {out}")
