"""`ratchet quarantine`: list refused lines and triplets with their reasons, and put them back."""

import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ratchet.errors import UserError
from ratchet.ingest import quarantine
from ratchet.manifest import Flow
from ratchet.store import Store, open_lake
from ratchet_pipelines.cli.options import AsJson, ConfigFile, Lake, Limit, settings
from ratchet_pipelines.console import say

app = typer.Typer(
    name="quarantine", help="List what was refused and why, and put back what is fixed.", no_args_is_help=True
)
Batch = Annotated[str, typer.Argument(metavar="BATCH", help="Digest of a batch, or its first digits.")]
out = Console(highlight=False)
ID_CHARS = 12
SHOWN = ("triplet_id", "reasons", "kind", "value_num", "value_text", "response")


@app.command("list")
def list_(lake: Lake = "lake", as_json: AsJson = False) -> None:
    """List the batches: rows or lines in each, and why they were refused."""
    store = open_lake(lake)
    summaries = (_summary(store, *batch) for batch in quarantine.batches(store).items())
    batches = [batch for batch in summaries if batch["rows"]]  # a run without bad rows leaves a table without rows
    if as_json:
        print(json.dumps(batches, indent=1))
        return
    table = Table("batch", "holds", "why")
    for batch in batches:
        why = ", ".join(f"{reason} {count:,}" for reason, count in batch["why"].items())
        table.add_row(batch["batch"][:ID_CHARS], f"{batch['rows']:,} {batch['holds']}", escape(why))
    out.print(table if batches else f"Nothing is in quarantine in {store.root}.")


@app.command()
def show(
    batch: Batch,
    lake: Lake = "lake",
    limit: Limit = 20,
    raw: Annotated[
        bool, typer.Option("--raw", help="Print all refused lines as they were, to fix and replay.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show the rows of a batch with their reasons; refused lines also with file and byte offset."""
    store = open_lake(lake)
    _, keys = quarantine.find(store, batch)
    if raw:
        for line in quarantine.refused(store, keys):
            sys.stdout.buffer.write(line.data.rstrip(b"\r\n") + b"\n")
        return
    entries = [entry for entry, _ in zip(_entries(store, keys), range(limit), strict=False)]
    if as_json:
        print(json.dumps(entries, indent=1))
    for entry in entries if not as_json else ():
        out.print(escape("  ".join(f"{name}={value}" for name, value in entry.items())), soft_wrap=True)


@app.command()
def replay(
    batch: Batch,
    fixed: Annotated[
        Path | None,
        typer.Option(
            "--with", metavar="FILE", help="Fixed events, one JSON object a line.", exists=True, dir_okay=False
        ),
    ] = None,
    lake: Lake = "lake",
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Put a batch back: land its lines again (each event once), or check its triplets by today's contract."""
    store = open_lake(lake)
    digest, keys = quarantine.find(store, batch)
    for refused in quarantine.refused(store, keys):
        if refused.importer:
            raise UserError(_importer_needed(digest[:ID_CHARS], refused.importer))
    if fixed is not None:
        flow = quarantine.land_again(store, fixed.read_bytes().splitlines())
    elif lines := [refused.data for refused in quarantine.refused(store, keys)]:
        flow = quarantine.land_again(store, lines)
    else:
        flow = _check_again(store, keys, config)
    if as_json:
        print(flow.model_dump_json())


def _importer_needed(batch: str, importer: str) -> str:
    return (
        f"quarantine {batch} holds records of {importer} files, which only their importer reads: save them with "
        f"`ratchet quarantine show {batch} --raw`, fix them, and `ratchet import {importer} FILE`, with the --score "
        "and --traces that they need; events that have landed before do not land twice"
    )


def _check_again(store: Store, keys: list[str], config: Path | None) -> Flow:
    from ratchet.validation.validate_part import revalidate

    flow = revalidate(_rows(store, keys), settings(config).validate_triplets)
    say.print(
        f"{flow.rows_out:,} of {flow.rows_in:,} triplets pass today's contract. They are still in the table: "
        "`ratchet run` checks all of it again when the suite or its limits change, and counts each triplet once."
    )
    return flow


def _rows(store: Store, keys: list[str]) -> Any:
    import polars as pl

    return pl.concat([pl.read_parquet(store.local(key)) for key in keys], how="diagonal")


def _summary(store: Store, batch: str, keys: list[str]) -> dict[str, Any]:
    if lines := list(quarantine.refused(store, keys)):
        why = Counter(line.why for line in lines)
        return {"batch": batch, "holds": "lines", "rows": len(lines), "why": dict(why.most_common())}
    rows = _rows(store, keys)
    why = Counter(rows["reasons"].explode(empty_as_null=True, keep_nulls=True))
    return {"batch": batch, "holds": "triplets", "rows": rows.height, "why": dict(why.most_common())}


def _entries(store: Store, keys: list[str]) -> Iterator[dict[str, Any]]:
    lines = list(quarantine.refused(store, keys))
    for line in lines:
        yield {
            "file": line.file,
            "offset": line.offset,
            "why": line.why,
            "line": line.data.decode(errors="replace").strip(),
        }
    if not lines:
        rows = _rows(store, keys)
        yield from rows.select(name for name in SHOWN if name in rows.columns).iter_rows(named=True)
