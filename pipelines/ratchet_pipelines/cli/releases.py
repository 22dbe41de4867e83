"""The operator's hand: what was released and why, and the two ways to stop it."""

import json
import os
import time
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from ratchet.errors import UserError
from ratchet.store import open_lake
from ratchet_pipelines.cli.options import AsJson, ConfigFile, Lake, settings

say = Console(stderr=True, highlight=False)
app = typer.Typer(help="Show the ledger: every release that was asked for, and how it ended.")
Who = Annotated[str, typer.Option(help="Who asks.", envvar="USER")]


def add_to(cli: typer.Typer) -> None:
    cli.add_typer(app, name="releases")
    for command in (abort, rollback, hook_token):
        cli.command(command.__name__.replace("_", "-"))(command)


@app.callback(invoke_without_command=True)
def releases(context: typer.Context, lake: Lake = "lake", as_json: AsJson = False) -> None:
    """Show the ledger: every release that was asked for, and how it ended."""
    from ratchet.release.ledger import read_ledger
    from ratchet.release.ledger import releases as by_release

    if context.invoked_subcommand:
        return
    records = read_ledger(open_lake(lake))
    if as_json:
        print(json.dumps([record.model_dump() for record in records], indent=1))
        return
    table = Table(box=None)
    for heading in ("id", "when", "event", "adapter", "digest", "by", "why"):
        table.add_column(heading, overflow="fold")
    for release in by_release(records):
        for record in release:
            adapter, digest = str(record.adapter), record.adapter.digest[:12]
            table.add_row(str(release[0].seq), _when(record.at), record.event, adapter, digest, record.who, record.why)
    Console().print(table if records else f"No release was asked for in {lake}.")


@app.command()
def show(
    release_id: Annotated[int, typer.Argument(metavar="ID", help="As `ratchet releases` lists it.")],
    lake: Lake = "lake",
    as_json: AsJson = False,
) -> None:
    """Explain one release: what asked to serve instead of what, on what evidence, who decided, and what changed."""
    from ratchet.release.ledger import read_ledger
    from ratchet.release.ledger import releases as by_release

    known = by_release(read_ledger(open_lake(lake)))
    found = next((release for release in known if release_id in [record.seq for record in release]), None)
    if found is None:
        ids = ", ".join(str(release[0].seq) for release in known) or "none"
        raise UserError(f"releases show {release_id}: no such release in {lake}; there are {ids}")
    told = _explain([record.model_dump() for record in found])
    if as_json:
        print(json.dumps(told, indent=1))
        return
    table = Table(box=None, show_header=False)
    for name, value in told.items():
        if name != "records" and value not in (None, "", {}):
            table.add_row(name.replace("_", " "), _words(value))
    Console().print(table)


def abort(
    why: Annotated[str, typer.Argument(help="The reason, for the ledger.")],
    lake: Lake = "lake",
    who: Who = "operator",
    as_json: AsJson = False,
) -> None:
    """Roll back the release that is under way, without waiting for the gate."""
    from ratchet.release.ledger import Ledger, request_abort

    record = request_abort(Ledger(open_lake(lake)), who, time.time(), why)
    if record is None:
        raise UserError(f"abort: no release is under way in {lake}; `ratchet releases` shows how the last one ended")
    say.print(f"Asked for {record.adapter} to be rolled back; the reconciler takes it from here.")
    if as_json:
        print(record.model_dump_json(indent=1))


def rollback(
    why: Annotated[str, typer.Argument(help="The reason, for the ledger and the commit.")],
    to: Annotated[str, typer.Option(help="Version that served before; `base` is the base model alone.")],
    lake: Lake = "lake",
    config: ConfigFile = None,
    who: Who = "operator",
    as_json: AsJson = False,
) -> None:
    """Go back to a version that served before, after a promotion: no canary; what serves now is quarantined."""
    from ratchet.release.ledger import Ledger
    from ratchet.release.operator_rollback import request_rollback
    from ratchet.release.reconciler.kubernetes import ClusterReader, ClusterUnavailable

    release = settings(config).release_adapter
    if release.cluster_url is None:
        raise UserError("release_adapter.cluster_url is not set; a rollback has to see what serves")
    with ClusterReader(release.cluster_url, release.namespace, release.canary) as cluster:
        try:
            record = request_rollback(Ledger(open_lake(lake)), cluster.look(), to, who, time.time(), why)
        except ClusterUnavailable as away:
            raise UserError(f"rollback: {away}") from None
    say.print(f"Asked to go back to {record.adapter} from {record.baseline}; the reconciler takes it from here.")
    if as_json:
        print(record.model_dump_json(indent=1))


def hook_token() -> None:
    """Print the token for Flagger's webhooks (adapter-router's `gate.token`), made from RATCHET_GATE_TOKEN."""
    from ratchet.release.gate import tokens

    print(tokens.hook_token(tokens.gate_token(os.environ)))


def _explain(records: list[dict[str, Any]]) -> dict[str, Any]:
    first, last = records[0], records[-1]
    evidence: dict[str, Any] = last["evidence"]
    is_closed = last["event"] not in ("requested", "abort_requested")
    return {
        "id": first["seq"],
        "adapter": _adapter(first["adapter"]),
        "instead_of": _adapter(first["baseline"]) if first["baseline"] else None,
        "attempt": first["attempt"],
        "outcome": last["event"] if is_closed else "under way",
        "why": last["why"],
        "asked_by": first["who"],
        "asked_at": _when(first["at"]),
        "offline_verdict": first["verdict"] + (", forced past it" if first["forced"] else ""),
        "decided_by": last["who"] if is_closed else None,
        "decided_at": _when(last["at"]) if is_closed else None,
        "seconds": round(last["at"] - first["at"], 1) if is_closed else None,
        "votes": {arm: f"{tally['up']} of {tally['n']} up" for arm, tally in evidence.get("votes", {}).items()},
        "log_e": evidence.get("log_e"),
        "bound": evidence.get("bound"),
        "commit": last["commit"],
        "records": records,
    }


def _adapter(plain: dict[str, Any]) -> str:
    return f"{plain['name']}@v{plain['version']} {plain['digest'][:12]}"


def _words(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_words(each)}" for key, each in value.items())
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def _when(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(seconds))
