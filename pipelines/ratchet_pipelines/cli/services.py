"""The commands that an operator runs as services: model server, router, syncer, gate, reconciler; and drift."""

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from ratchet.store import open_store
from ratchet_pipelines.cli.options import AsJson, ConfigFile, Host, Lake, Port, ResultFolder, settings
from ratchet_pipelines.console import say


def serve_model(config: ConfigFile = None, host: Host = "127.0.0.1", port: Port = 8000) -> None:
    """Serve the base model and LoRA adapters by name on this machine's CPU, with vLLM's HTTP API."""
    from ratchet.inference.server import serve

    serve(settings(config), host, port)


def serve_router() -> None:
    """Serve one adapter from a model pool, and record interactions and votes.

    Configured by the variables RATCHET_*: docs/serving.md.
    """
    from ratchet.router.app import main as router

    router()


def serve_syncer(
    lake: Lake = "lake",
    pool_url: Annotated[str, typer.Option(metavar="URL", help="The model server.")] = "http://127.0.0.1:8000",
    folder: Annotated[Path, typer.Option(help="Folder in which that server finds adapters.")] = Path("/adapters"),
    host: Host = "127.0.0.1",
    port: Port = 8001,
    poll_s: Annotated[float, typer.Option(help="Seconds between two looks at the ledger.")] = 2.0,
    max_adapters: Annotated[int, typer.Option(help="Most adapters to keep loaded, the last named first.")] = 4,
) -> None:
    """Load the adapters that the ledger names into one model server, after checking each one's digest."""
    from ratchet.inference.syncer import serve

    serve(lake, pool_url, folder, host, port, poll_s, max_adapters)


def serve_gate(lake: Lake = "lake", config: ConfigFile = None, host: Host = "127.0.0.1", port: Port = 8080) -> None:
    """Serve the gate, which answers Flagger before each step of a canary from the votes in the lake."""
    from ratchet.release.gate.app import serve

    serve(settings(config), open_store(lake), host, port)


def hold_duels(
    lake: Lake = "lake",
    config: ConfigFile = None,
    pool_url: Annotated[str, typer.Option(metavar="URL", help="The model server.")] = "http://127.0.0.1:8000",
) -> None:
    """Let both arms answer a share of a canary's prompts in the shadow, and judge the answers, until it is stopped."""
    from ratchet.duels import hold_duels as hold

    hold(settings(config), open_store(lake), pool_url)


def reconcile(
    lake: Lake = "lake",
    config: ConfigFile = None,
    once: Annotated[bool, typer.Option("--once", help="Make one pass and end, for a scheduler.")] = False,
    host: Host = "127.0.0.1",
    health_port: Annotated[int | None, typer.Option(help="Port of /healthz and /metrics; none without it.")] = None,
) -> None:
    """Make traffic, registry, Git and ledger agree after each canary, until it is stopped."""
    from ratchet.release.reconciler.health import Health
    from ratchet.release.reconciler.reconcile import run

    health = Health()
    with health.served(host, health_port) if health_port is not None else nullcontext():
        run(settings(config), open_store(lake), once, health)


def drift(
    lake: Lake = "lake",
    as_json: AsJson = False,
    out: ResultFolder = None,
) -> None:
    """Test whether prompts and votes of the last week differ from the four weeks before."""
    from ratchet.monitoring.drift import find_drift

    result = find_drift(open_store(lake))
    say.print(f"{'Drift' if result['drifted'] else 'No drift'}: {result['why']}", markup=False)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "return.json").write_text(json.dumps(result), encoding="utf-8")
    if as_json:
        print(json.dumps(result, indent=1))
