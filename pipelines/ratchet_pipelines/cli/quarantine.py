"""`ratchet quarantine`: what was refused, why, and how it gets back into the lake."""

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
from ratchet_pipelines.cli.options import AsJson, ConfigFile, Lake, settings

app = typer.Typer(name="quarantine", help="What was refused, why, and how it gets back.", no_args_is_help=True)
Batch = Annotated[str, typer.Argument(help="Digest of a batch, or how it begins.")]
say = Console(stderr=True, highlight=False)
ID_CHARS = 12
SHOWN = ("triplet_id", "reasons", "kind", "value_num", "value_text", "response")


@app.command("list")
def list_(lake: Lake = "lake", as_json: AsJson = False) -> None:
    """Every batch: how many rows or lines it holds, and why they were refused."""
    store = open_lake(lake)
    summaries = (_summary(store, *batch) for batch in quarantine.batches(store).items())
    found = [batch for batch in summaries if batch["rows"]]  # a run without bad rows leaves a table without rows
    if as_json:
        print(json.dumps(found, indent=1))
        return
    table = Table("batch", "holds", "why")
    for batch in found:
        why = ", ".join(f"{reason} {count:,}" for reason, count in batch["why"].items())
        table.add_row(batch["batch"][:ID_CHARS], f"{batch['rows']:,} {batch['holds']}", escape(why))
    say.print(table if found else f"Nothing is in quarantine in {store.root}.")


@app.command()
def show(
    batch: Batch,
    lake: Lake = "lake",
    limit: Annotated[int, typer.Option(help="Print so many at most.")] = 20,
    raw: Annotated[
        bool, typer.Option("--raw", help="Print the refused lines themselves, all of them, to mend.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """What a batch holds, with the reasons; lines that are no events also with their file and byte offset."""
    store = open_lake(lake)
    _, keys = quarantine.find(store, batch)
    if raw:
        for line in quarantine.refused(store, keys):
            sys.stdout.buffer.write(line.data.rstrip(b"\r\n") + b"\n")
        return
    found = [entry for entry, _ in zip(_entries(store, keys), range(limit), strict=False)]
    if as_json:
        print(json.dumps(found, indent=1))
    for entry in found if not as_json else ():
        say.print(escape("  ".join(f"{name}={value}" for name, value in entry.items())), soft_wrap=True)


@app.command()
def replay(
    batch: Batch,
    mended: Annotated[Path | None, typer.Option("--with", help="Mended events, one JSON object a line.")] = None,
    lake: Lake = "lake",
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Put back what is good by now: lines land again (each event once), triplets are judged by today's contract."""
    store = open_lake(lake)
    digest, keys = quarantine.find(store, batch)
    for refused in quarantine.refused(store, keys):
        if refused.importer:
            raise UserError(_say_import(digest[:ID_CHARS], refused.importer))
    if mended is not None:
        flow = quarantine.land_again(store, mended.read_bytes().splitlines())
    elif lines := [refused.data for refused in quarantine.refused(store, keys)]:
        flow = quarantine.land_again(store, lines)
    else:
        flow = _look_again(store, keys, config)
    if as_json:
        print(flow.model_dump_json())


def _say_import(batch: str, importer: str) -> str:
    return (
        f"quarantine {batch} holds records of {importer} files, which only their importer reads: save them with "
        f"`ratchet quarantine show {batch} --raw`, mend them, and `ratchet import {importer} FILE`, with the --score "
        "and --traces that they need; what landed before is known and lands no second time"
    )


def _look_again(store: Store, keys: list[str], config: Path | None) -> Flow:
    from ratchet.validation.validate_part import revalidate

    flow = revalidate(_rows(store, keys), settings(config).validate_triplets)
    say.print(
        f"{flow.rows_out:,} of {flow.rows_in:,} triplets pass the contract of today. They never left the table: "
        "`ratchet run` judges all of it anew when the suite or its limits change, and counts each once."
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
