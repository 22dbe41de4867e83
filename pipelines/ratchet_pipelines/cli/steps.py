"""The seven steps as commands: manifests in, one manifest out. Every orchestrator runs them this way."""

import os
import time
from collections.abc import Callable, Sequence
from typing import Annotated

import typer

from ratchet.errors import UserError
from ratchet.manifest import Manifest
from ratchet.scheduler_claim import claim
from ratchet.step import Step, assist_step, read_manifest, run_step, share_step
from ratchet.store import Store, open_store
from ratchet_pipelines.cli.options import ConfigFile, Inputs, Lake, ResultFolder, Scheduler, settings, step_names
from ratchet_pipelines.console import announce, say
from ratchet_pipelines.result import write_result

SUMMARIES = {
    "collect_triplets": "Join new events into triplets, each event exactly once.",
    "validate_triplets": "Check triplets, quarantine the bad ones, hide personal data in the good ones.",
    "build_datasets": "Build weighted SFT, DPO and KTO rows, and hold some out.",
    "train_adapter": "Train one LoRA adapter on a dataset: SFT, then DPO, then KTO.",
    "evaluate_adapter": "Compare the candidate with the incumbent on held-out pairs; give a verdict.",
    "register_adapter": "Register the adapter in MLflow, with its lineage and verdict.",
    "release_adapter": "Release the adapter through Git and a canary; wait until it is champion or rolled back.",
}


def step_command(step: Step) -> Callable[..., None]:
    """Return the command that runs a step."""

    def command(
        lake: Lake = "lake",
        config: ConfigFile = None,
        given: Inputs = None,
        out: ResultFolder = None,
        share: Annotated[
            str | None,
            typer.Option(
                metavar="I/N", help="Make the missing parts of share I of N (from 1), publish nothing, and end."
            ),
        ] = None,
        scheduler: Scheduler = "",
    ) -> None:
        store = open_store(lake)
        if scheduler:
            claim(store, scheduler, time.time())
        if share is not None:
            number, _, of = share.partition("/")
            if not (number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of)):
                raise UserError(f"--share {share}: write I/N, as 1/4 for the first of four shares")
            num_made = share_step(step, settings(config), read_inputs(store, given or []), store, int(number), int(of))
            say.print(f"{step.name}: share {share}, {num_made} parts made")
            return
        if os.environ.get("RANK", "0") != "0":  # one of the further processes that `accelerate launch` starts
            assist_step(step, settings(config), read_inputs(store, given or []), store)
            return
        ran = run_step(step, settings(config), read_inputs(store, given or []), store)
        announce(step, ran)
        if out is not None:
            write_result(ran, out)
        print(ran.manifest.uri)

    inputs = " ".join(f"--in {name.replace('_', '-')}=MANIFEST" for name in step.inputs)
    needs = f"Needs {inputs}. " if inputs else ""
    command.__doc__ = f"{SUMMARIES[step.name]}\n\n{needs}Prints the URI of its own manifest."
    return command


def read_inputs(store: Store, given: Sequence[str]) -> dict[str, Manifest]:
    """Read the manifests of `--in`, by step. Raises UserError for an unknown step or a missing manifest."""
    return dict(read_input(store, pair) for pair in given)


def read_input(store: Store, pair: str) -> tuple[str, Manifest]:
    """Read the manifest of one `--in`: STEP=MANIFEST."""
    name, _, uri = pair.partition("=")
    if not uri or name.replace("_", "-") not in step_names():
        raise UserError(f"--in {pair}: write STEP=MANIFEST; steps are {', '.join(step_names())}")
    return name.replace("-", "_"), read_manifest(store, uri)
