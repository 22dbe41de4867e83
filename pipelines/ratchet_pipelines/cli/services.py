"""The commands of those who operate Ratchet: the services, the reconciler, and drift."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ratchet.store import open_store
from ratchet_pipelines.cli.options import AsJson, ConfigFile, Host, Lake, Port, settings

say = Console(stderr=True, highlight=False)


def add_to(app: typer.Typer) -> None:
    for command in (serve_model, serve_router, serve_syncer, serve_gate, reconcile, drift):
        app.command(command.__name__.replace("_", "-"))(command)


def serve_model(config: ConfigFile = None, host: Host = "127.0.0.1", port: Port = 8000) -> None:
    """Serve the base model and LoRA adapters by name on this machine: vLLM's surface on a CPU."""
    from ratchet.inference.server import serve

    serve(settings(config), host, port)


def serve_router() -> None:
    """Serve one adapter from a model pool and record what users think of it. Configured by RATCHET_* variables."""
    from ratchet.router.app import main as router

    router()


def serve_syncer(
    lake: Lake = "lake",
    pool_url: Annotated[str, typer.Option(help="The model server beside this one.")] = "http://127.0.0.1:8000",
    folder: Annotated[Path, typer.Option(help="Where that server finds adapters.")] = Path("/adapters"),
    host: Host = "127.0.0.1",
    port: Port = 8001,
    poll_s: Annotated[float, typer.Option(help="Seconds between two looks at the ledger.")] = 2.0,
    max_adapters: Annotated[int, typer.Option(help="How many of the adapters named last are kept loaded.")] = 4,
) -> None:
    """Load the adapters that the ledger names into one model server, each after its digest is checked."""
    from ratchet.inference.syncer import serve

    serve(lake, pool_url, folder, host, port, poll_s, max_adapters)


def serve_gate(lake: Lake = "lake", config: ConfigFile = None, host: Host = "127.0.0.1", port: Port = 8080) -> None:
    """Serve the gate: Flagger asks it before every move of a canary, and the votes in the lake answer."""
    from ratchet.release.gate.app import serve

    serve(settings(config), open_store(lake), host, port)


def reconcile(
    lake: Lake = "lake",
    config: ConfigFile = None,
    once: Annotated[bool, typer.Option("--once", help="One pass, then end; for a scheduler.")] = False,
) -> None:
    """Make traffic, registry, Git and ledger agree after each canary, until told to stop."""
    from ratchet.release.reconciler.reconcile import run

    run(settings(config), open_store(lake), once)


def drift(
    lake: Lake = "lake",
    as_json: AsJson = False,
    out: Annotated[Path | None, typer.Option(help="A folder for return.json, which an orchestrator reads.")] = None,
) -> None:
    """Compare the last week of votes with the four weeks before: has what users ask and think moved?"""
    from ratchet.monitoring.drift import find_drift

    found = find_drift(open_store(lake))
    say.print(f"{'Drift' if found['drifted'] else 'No drift'}: {found['why']}", markup=False)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "return.json").write_text(json.dumps(found), encoding="utf-8")
    if as_json:
        print(json.dumps(found, indent=1))
