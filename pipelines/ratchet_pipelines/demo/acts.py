"""Play the two acts of the demo, and check at the end that every place names the same champion."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import httpx
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from ratchet.config import Config
from ratchet.manifest import Manifest
from ratchet.release.gate.tokens import VARIABLE
from ratchet.release.reconciler.targets import read_gate
from ratchet.step import Step, run_step
from ratchet.store import Store, open_store
from ratchet_pipelines import local_stack as services
from ratchet_pipelines.console import describe, say
from ratchet_pipelines.demo.places import AdapterSighting, who_is_champion
from ratchet_pipelines.demo.prompts import prompts
from ratchet_pipelines.demo.sabotage import sabotaged_dataset
from ratchet_pipelines.demo.users import Crowd
from ratchet_pipelines.graph import BY_NAME, STEPS
from ratchet_pipelines.loop import run_loop
from ratchet_pipelines.report import report_latest

NUM_VISITS = 170
NUM_ON_CANARY = 16  # users at once: while a canary waits for votes, faster answers help more than more users
NUM_SAMPLES = 2  # shown of each evaluation
REPEAT_S = 5  # seconds after which a repeated event is shown again, with the votes by then
TITLES = ("Act one: a better adapter", "Act two: a sabotaged adapter")


def play(root: Path, seed: int, config: Config) -> None:
    """Run both acts in a fresh folder under `root` and write the report. Exits with 1 if an act ends wrongly."""
    lake = _fresh_folder(root)
    config = config.model_copy(update={"seed": seed})
    store = open_store(lake)
    say.rule("[bold]Ratchet")
    say.print(f"Everything below happens on this machine, in {lake}. Starting model server, gate and cluster …")
    with ThreadPoolExecutor(1) as aside, services.running(lake, config, seed) as stack:
        crowd = Crowd(stack.gateway_url, prompts(seed), seed)
        first = _act_one(services.released_to(config, stack), store, stack, crowd)
        second = _act_two(services.released_to(config, stack, force=True), store, stack, crowd, first)
        places = who_is_champion(services.released_to(config, stack), store)
        report = aside.submit(report_latest, store, lake / "report.html", TITLES)  # while the services stop
    report.result()
    _show(places)
    say.print(f"\nReport: [bold]{lake / 'report.html'}[/bold]")
    _check(first["release_adapter"], second, places)


def _act_one(config: Config, store: Store, stack: services.Stack, crowd: Crowd) -> dict[str, Manifest]:
    say.rule(f"[bold]{TITLES[0]}")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=say) as progress:
        task = progress.add_task("users talk to the base model and vote", total=NUM_VISITS)
        crowd.visit(NUM_VISITS, lambda: progress.advance(task))
    say.print(f"{crowd.num_visits} visits, {crowd.num_liked / crowd.num_visits:.0%} of the answers were liked.")
    done = run_loop(config, store, _announce, STEPS[:-1])
    manifests = {name: ran.manifest for name, ran in done.items()}
    _print_verdict(manifests["evaluate_adapter"])
    manifests["release_adapter"] = _release(config, store, stack, crowd, manifests)
    return manifests


def _act_two(config: Config, store: Store, stack: services.Stack, crowd: Crowd, first: dict[str, Manifest]) -> Manifest:
    say.rule(f"[bold]{TITLES[1]}")
    say.print("The same votes read the wrong way round make an adapter that prefers what users rejected.")
    dataset = first["build_datasets"]
    made = {"build_datasets": sabotaged_dataset(config, dataset, store)}
    made["train_adapter"] = _run("train_adapter", config, store, made)
    made["build_datasets"] = dataset  # judged on the honest held-out votes
    for name in ("evaluate_adapter", "register_adapter"):
        made[name] = _run(name, config, store, made)
    _print_verdict(made["evaluate_adapter"])
    say.print(
        "[yellow]Forced past the offline gate[/yellow] (release_adapter.force: true); now only the votes can stop it."
    )
    return _release(config, store, stack, crowd, made)


def _run(name: str, config: Config, store: Store, made: dict[str, Manifest]) -> Manifest:
    step = BY_NAME[name]
    ran = run_step(step, config, {needed: made[needed] for needed in step.inputs}, store)
    _announce(step, ran)
    return ran.manifest


def _release(config: Config, store: Store, stack: services.Stack, crowd: Crowd, made: dict[str, Manifest]) -> Manifest:
    """Release while users keep talking and voting, and print the cluster's events meanwhile."""
    stop = threading.Event()
    talking = crowd.keep_visiting(stop, NUM_ON_CANARY)
    watching = threading.Thread(target=_follow, args=(stack, stop), daemon=True)
    watching.start()
    try:
        manifest = _run("release_adapter", config, store, made)
    finally:
        stop.set()
        talking.join()
        watching.join()
    if crowd.num_failed:
        say.print(f"[yellow]{crowd.num_failed} visits ended in an error[/yellow], the last: {crowd.last_failure}")
    for entry in manifest.facts["log"]:
        say.print(f"  {entry['t']:6.1f} s  {entry['text']}", markup=False, soft_wrap=True, style="dim")
    say.print(f"Release: [bold]{manifest.facts['outcome']}[/bold]: {manifest.facts['why']}")
    return manifest


def _follow(stack: services.Stack, stop: threading.Event) -> None:
    """Print the cluster's events as they happen, each with the gate's evidence."""
    num_seen = len(_get(f"{stack.api_url}/events") or [])
    last, printed_at = "", 0.0
    while not stop.wait(1):
        events = _get(f"{stack.api_url}/events") or []
        for event in events[num_seen:]:
            if event["text"] != last or event["t"] - printed_at >= REPEAT_S:
                evidence = _evidence(read_gate(stack.gate_url, os.environ[VARIABLE]))
                say.print(f"  {event['source']:<8} {event['text']}{evidence}", markup=False, soft_wrap=True)
                last, printed_at = event["text"], event["t"]
        num_seen = max(num_seen, len(events))


def _evidence(state: Any) -> str:
    if not state or not state.get("votes"):
        return ""
    arms = (f"{arm} {votes['up']}/{votes['n']} up" for arm, votes in state["votes"].items())
    return f"   [{', '.join(arms)}; {state['decision']}]"


def _get(url: str) -> Any:
    try:
        return httpx.get(url, timeout=5).json()
    except httpx.HTTPError:
        return None


def _announce(step: Step, ran: Any) -> None:
    if ran is not None:
        say.print(describe(step, ran), markup=False, soft_wrap=True)


def _print_verdict(evaluation: Manifest) -> None:
    facts = evaluation.facts
    say.print(f"Offline verdict: [bold]{facts['verdict']}[/bold]: {facts['why']}")
    different = (sample for sample in facts["samples"] if sample["incumbent"] != sample["candidate"])
    for sample in islice(different, NUM_SAMPLES):
        for name, text in sample.items():
            say.print(f"  {name:<9}  {' '.join(text.split())}", markup=False, soft_wrap=True, style="dim")


def _show(places: list[AdapterSighting]) -> None:
    table = Table(title="Who is champion?", title_justify="left")
    for heading in ("place", "adapter", "digest"):
        table.add_column(heading)
    for place in places:
        table.add_row(place.name, place.adapter, place.digest[:12])
    say.print(table)


def _check(first: Manifest, second: Manifest, places: list[AdapterSighting]) -> None:
    faults = []
    if first.facts["outcome"] != "promoted":
        faults.append(f"act one ended as {first.facts['outcome']}: {first.facts['why']}")
    if second.facts["outcome"] != "rolled_back":
        faults.append(f"act two ended as {second.facts['outcome']}: {second.facts['why']}")
    if len({place.digest for place in places}) != 1:
        faults.append("the places above do not agree")
    if faults:
        say.print("[red]The demo did not end as it should:[/red] " + "; ".join(faults))
        raise SystemExit(1)
    say.print("[green]A better adapter was promoted, a worse one rolled back, and every place agrees.[/green]")


def _fresh_folder(root: Path) -> Path:
    """The next free number under `root`: a demo never touches an earlier one."""
    root.mkdir(parents=True, exist_ok=True)
    taken = [int(path.name) for path in root.iterdir() if path.name.isdigit()]
    folder = root.absolute() / str(max(taken, default=0) + 1)
    folder.mkdir()
    return folder
