"""`ratchet lake`: how the lake stands, and its upkeep."""

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from ratchet.store import open_lake
from ratchet_pipelines.cli.options import AsJson, Lake

lake_app = typer.Typer(name="lake", help="How the lake stands, and its upkeep.", no_args_is_help=True)
say = Console(highlight=False, soft_wrap=True)


@lake_app.command("status")
def show_status(lake: Lake = "lake", as_json: AsJson = False) -> None:
    """Rows, days, lag, quarantine and drops."""
    from ratchet.monitoring.lake_status import status

    found = status(open_lake(lake), time.time())
    if as_json:
        print(found.model_dump_json(indent=1))
        return
    _print_grid(
        ("table", "rows", "files", "MB", "version"),
        [
            (name, f"{t.rows:,}", f"{t.files:,}", f"{t.size_bytes / 1e6:,.1f}", str(t.version))
            for name, t in found.tables.items()
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
            for kind, days in found.days.items()
        ],
    )
    newest = found.newest_event_s
    say.print(f"newest event collected: {_moment(newest)}, {_age(found.lag_s)} ago" if newest else "nothing collected")
    say.print(f"feedback waiting for its interaction: {found.waiting_feedback:,}")
    say.print(f"lines refused, kept in quarantine/: {found.refused_lines:,}")
    for step, drops in found.drops.items():
        told = ", ".join(f"{reason} {number:,}" for reason, number in drops.items())
        say.print(f"dropped by {step}: {told or 'none'}")


@lake_app.command("compact")
def compact_tables(
    lake: Lake = "lake",
    retention_hours: Annotated[
        int, typer.Option(help="Keep what versions younger than this need, so that they stay readable.")
    ] = 168,
    as_json: AsJson = False,
) -> None:
    """Merge the tables' small files and remove what no kept version needs. Safe beside collectors."""
    import json

    from ratchet.lake.maintenance import compact

    done = compact(open_lake(lake), retention_hours)
    if as_json:
        print(json.dumps({name: one.model_dump() for name, one in done.items()}))
        return
    rows = [(name, str(one.files_before), str(one.files_after), str(one.files_removed)) for name, one in done.items()]
    _print_grid(("table", "files before", "after", "removed from storage"), rows)


@lake_app.command("snapshots")
def list_snapshots(
    table: Annotated[str, typer.Argument(help="interactions, feedback or triplets")] = "triplets",
    lake: Lake = "lake",
    as_json: AsJson = False,
) -> None:
    """Versions of a table, oldest first."""
    import json

    from ratchet.lake.maintenance import snapshots

    found = snapshots(open_lake(lake), table)
    if as_json:
        print(json.dumps([one.model_dump() for one in found]))
        return
    _print_grid(("version", "written", "operation"), [(str(s.version), s.written_at, s.operation) for s in found])


def _print_grid(columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    grid = Table(*columns)
    for row in rows:
        grid.add_row(*row)
    say.print(grid)


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _age(seconds: float | None) -> str:
    hours = (seconds or 0.0) / 3600
    return f"{hours / 24:.1f} days" if hours >= 48 else f"{hours:.1f} hours" if hours >= 1 else f"{hours * 60:.0f} min"
