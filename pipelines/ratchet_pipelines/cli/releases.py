"""`ratchet releases`, `approve`, `abort`, `rollback` and `hook-token`: read the ledger; allow, stop, undo a release."""

import json
import os
import time
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from ratchet.errors import UserError
from ratchet.store import open_lake
from ratchet_pipelines.cli.options import AsJson, ConfigFile, Lake, Who, Why, settings
from ratchet_pipelines.console import say

NOBODY = ("root", "ratchet")  # the users of images
app = typer.Typer(help="List all releases and how they ended, or show one.")


@app.callback(invoke_without_command=True)
def releases(context: typer.Context, lake: Lake = "lake", as_json: AsJson = False) -> None:
    """List all releases and how they ended, or show one."""
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
    ids = {record.seq: str(release[0].seq) for release in by_release(records) for record in release}
    for record in records:
        adapter, digest = str(record.adapter), record.adapter.digest[:12]
        release_id = ids.get(record.seq, "-")  # an approval stands before its release
        table.add_row(release_id, _when(record.at), record.event, adapter, digest, record.who, record.why)
    Console().print(table if records else f"No release was asked for in {lake}.")


@app.command()
def show(
    release_id: Annotated[int, typer.Argument(metavar="ID", help="Number of the release, from `ratchet releases`.")],
    lake: Lake = "lake",
    as_json: AsJson = False,
) -> None:
    """Show one release: candidate, incumbent, evidence, who decided, and what changed."""
    from ratchet.release.ledger import approval, read_ledger
    from ratchet.release.ledger import releases as by_release

    ledger = read_ledger(open_lake(lake))
    known = by_release(ledger)
    records = next((release for release in known if release_id in [record.seq for record in release]), None)
    if records is None:
        ids = ", ".join(str(release[0].seq) for release in known) or "none"
        raise UserError(f"releases show {release_id}: no such release in {lake}; there are {ids}")
    yes = approval([record for record in ledger if record.seq < records[0].seq], records[0].adapter.digest)
    approved = {"approved_by": yes.who, "approved_because": yes.why} if yes else {}
    summary = {**_summarize([record.model_dump() for record in records]), **approved}
    if as_json:
        print(json.dumps(summary, indent=1))
        return
    table = Table(box=None, show_header=False)
    for name, value in summary.items():
        if name != "records" and value not in (None, "", {}):
            table.add_row(name.replace("_", " "), _words(value))
    Console().print(table)


def approve(
    adapter: Annotated[
        str,
        typer.Argument(
            metavar="ADAPTER", help="Its digest (8 characters do), NAME@vN, or the URI of register-adapter's manifest."
        ),
    ],
    why: Why,
    lake: Lake = "lake",
    who: Who = "",
    is_optional: Annotated[
        bool, typer.Option("--optional", help="Do nothing where --who is empty, as in a form that nobody filled in.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Approve the next release of an adapter, where `release_adapter.approval` is `person`.

    Then run release-adapter, or let the orchestrator. It does not overrule the verdict.
    """
    from ratchet.release.approval import approve as record_approval
    from ratchet.release.approval import find_registered
    from ratchet.release.ledger import Ledger

    if is_optional and not who:
        return
    if who in NOBODY:
        raise UserError(f"approve: who = {who!r} is no person; say who you are with --who, for the ledger")
    store = open_lake(lake)
    registered = find_registered(store, adapter)
    record = record_approval(Ledger(store), registered, who, time.time(), why)
    verdict = "" if registered.verdict == "pass" else f" Its offline verdict is {registered.verdict}, which this keeps."
    say.print(f"Approved: {record.adapter} ({record.adapter.digest[:12]}), by {record.who}: {record.why}.{verdict}")
    if as_json:
        print(record.model_dump_json(indent=1))


def abort(
    why: Why,
    lake: Lake = "lake",
    who: Who = "operator",
    as_json: AsJson = False,
) -> None:
    """Roll back the release that is under way, without waiting for the gate.

    `ratchet rollback` goes back after a promotion.
    """
    from ratchet.release.ledger import Ledger, request_abort

    record = request_abort(Ledger(open_lake(lake)), who, time.time(), why)
    if record is None:
        raise UserError(f"abort: no release is under way in {lake}; `ratchet releases` shows how the last one ended")
    say.print(f"Requested the rollback of {record.adapter}; the reconciler carries it out.")
    if as_json:
        print(record.model_dump_json(indent=1))


def rollback(
    why: Why,
    to: Annotated[
        str, typer.Option(metavar="VERSION", help="Version that served before; `base` is the base model alone.")
    ],
    lake: Lake = "lake",
    config: ConfigFile = None,
    who: Who = "operator",
    as_json: AsJson = False,
) -> None:
    """Go back to a version that served before, without a canary; the serving adapter is quarantined.

    `ratchet abort` stops a release that is still under way.
    """
    from ratchet.release.ledger import Ledger
    from ratchet.release.operator_rollback import request_rollback
    from ratchet.release.reconciler.kubernetes import ClusterReader, ClusterUnavailable

    release = settings(config).release_adapter
    if release.cluster_url is None:
        raise UserError("release_adapter.cluster_url is not set; a rollback reads the serving adapter from the cluster")
    with ClusterReader(release.cluster_url, release.namespace, release.canary) as cluster:
        try:
            record = request_rollback(Ledger(open_lake(lake)), cluster.look(), to, who, time.time(), why)
        except ClusterUnavailable as error:
            raise UserError(f"rollback: {error}") from None
    say.print(f"Requested the rollback from {record.baseline} to {record.adapter}; the reconciler carries it out.")
    if as_json:
        print(record.model_dump_json(indent=1))


def hook_token() -> None:
    """Print the token for Flagger's webhooks, derived from the variable RATCHET_GATE_TOKEN.

    It is the value `gate.token` of the chart adapter-router.
    """
    from ratchet.release.gate import tokens

    print(tokens.hook_token(tokens.gate_token(os.environ)))


def _summarize(records: list[dict[str, Any]]) -> dict[str, Any]:
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
        return ", ".join(f"{key} {_words(inner)}" for key, inner in value.items())
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def _when(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(seconds))
