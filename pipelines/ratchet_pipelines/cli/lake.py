"""`ratchet lake`: status of the lake, its scheduler, compaction, versions of its tables."""

import json
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from ratchet.store import open_lake
from ratchet_pipelines.cli.options import AsJson, Lake, one_of

lake_app = typer.Typer(
    help="Show the lake's status and scheduler, compact its tables, list versions.", no_args_is_help=True
)
out = Console(highlight=False, soft_wrap=True)


def _table_names() -> tuple[str, ...]:
    from ratchet.lake.maintenance import TABLES

    return tuple(TABLES)


@lake_app.command("status")
def show_status(lake: Lake = "lake", as_json: AsJson = False) -> None:
    """Show rows, days, lag, quarantine and drops."""
    from ratchet.monitoring.lake_status import status

    summary = status(open_lake(lake), time.time())
    if as_json:
        print(summary.model_dump_json(indent=1))
        return
    _print_grid(
        ("table", "rows", "files", "MB", "version"),
        [
            (name, f"{t.rows:,}", f"{t.files:,}", f"{t.size_bytes / 1e6:,.1f}", str(t.version))
            for name, t in summary.tables.items()
        ],
    )
    _print_grid(
        ("landed", "days", "first", "last", "files", "not collected"),
        [
            (
                kind,
                f"{len(days):,}",
                min(days, default="-"),
                max(days, default="-"),
                f"{sum(day.files for day in days.values()):,}",
                f"{sum(day.waiting for day in days.values()):,}",
            )
            for kind, days in summary.days.items()
        ],
    )
    newest = summary.newest_event_s
    if newest:
        moment = datetime.fromtimestamp(newest, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        out.print(f"newest event collected: {moment}, {_age(summary.lag_s)} ago")
    else:
        out.print("nothing collected")
    out.print(f"feedback waiting for its interaction: {summary.waiting_feedback:,}")
    out.print(f"lines refused, kept in quarantine/: {summary.refused_lines:,}")
    for step, drops in summary.drops.items():
        counts = ", ".join(f"{reason} {number:,}" for reason, number in drops.items())
        out.print(f"dropped by {step}: {counts or 'none'}")


@lake_app.command("scheduler")
def show_scheduler(
    lake: Lake = "lake",
    is_released: Annotated[
        bool, typer.Option("--release", help="End its claim, so that another scheduler may run the loop from now on.")
    ] = False,
) -> None:
    """Show which scheduler runs the loop on this lake; there is at most one.

    It holds the lake until it is released, or for eight days from its last run.
    """
    from ratchet import scheduler_claim

    store, now = open_lake(lake), time.time()
    held = scheduler_claim.scheduler_of(store, now)
    if held is None:
        out.print("no scheduler")
        return
    name, until = held
    if is_released:
        scheduler_claim.hand_over(store, now)
        out.print(f"{name} is released; the next scheduler that runs takes the lake")
    else:
        out.print(f"{name}, until {datetime.fromtimestamp(until, UTC):%Y-%m-%d %H:%M} UTC")


@lake_app.command("compact")
def compact_tables(
    lake: Lake = "lake",
    retention_hours: Annotated[
        int, typer.Option(min=0, help="Hours; table versions younger than this stay readable.")
    ] = 168,
    as_json: AsJson = False,
) -> None:
    """Merge the tables' small files, and remove files that no kept version needs.

    Safe while collectors write.
    """
    from ratchet.lake.maintenance import compact

    done = compact(open_lake(lake), retention_hours)
    if as_json:
        print(json.dumps({name: counts.model_dump() for name, counts in done.items()}, indent=1))
        return
    rows = [(name, str(n.files_before), str(n.files_after), str(n.files_removed)) for name, n in done.items()]
    _print_grid(("table", "files before", "after", "removed from storage"), rows)


@lake_app.command("snapshots")
def list_snapshots(
    table: Annotated[
        str,
        typer.Argument(
            help=f"Table to list: {', '.join(_table_names())}.", **one_of("table", _table_names, is_listed=False)
        ),
    ] = "triplets",
    lake: Lake = "lake",
    as_json: AsJson = False,
) -> None:
    """List the versions of a table, oldest first."""
    from ratchet.lake.maintenance import snapshots

    versions = snapshots(open_lake(lake), table)
    if as_json:
        print(json.dumps([version.model_dump() for version in versions], indent=1))
        return
    _print_grid(("version", "written", "operation"), [(str(v.version), v.written_at, v.operation) for v in versions])


def _print_grid(columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    grid = Table(*columns)
    for row in rows:
        grid.add_row(*row)
    out.print(grid)


def _age(seconds: float | None) -> str:
    hours = (seconds or 0.0) / 3600
    return f"{hours / 24:.1f} days" if hours >= 48 else f"{hours:.1f} hours" if hours >= 1 else f"{hours * 60:.0f} min"
