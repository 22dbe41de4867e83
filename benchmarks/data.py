"""The data layer from landed events to datasets: rows a second, CPU seconds, peak memory, against a peer and a floor.

The same generated files go through three programs, each in a process of its own: ours; the floor, DuckDB reading,
joining and writing them with no logic at all; and the peer, the usual pandas, Great Expectations and datasketch, on a
sample that it can finish. Five million answers and a million votes are what the goals are set for.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROWS = 6_000_000
PEER_ROWS = 120_000  # of fewer, importing Great Expectations would be most of what is measured


PROGRAMS = ("floor", "ours", "peer")


def run(
    num_rows: int = ROWS,
    until: str = "build_datasets",
    folder: Path | None = None,
    programs: Sequence[str] = PROGRAMS,
) -> dict[str, float]:
    """Rows a second of each program; prints CPU seconds, memory and stages.

    Ours stops after the step `until`. What is generated stays in `folder`, if one is given, for the next run.
    """
    with tempfile.TemporaryDirectory(prefix="ratchet-bench-") as aside:
        landed, sample = (_generated(folder or Path(aside), rows) for rows in (num_rows, min(PEER_ROWS, num_rows)))
        lake = Path(aside) / "lake"
        shutil.copytree(landed, lake, copy_function=lambda source, target: Path(target).hardlink_to(source))
        commands = {
            "floor": _program("benchmarks.data_floor", landed),
            "ours": _program("benchmarks.data_pipeline", lake, until),
            "peer": _program("benchmarks.data_peer", sample),
        }
        found = {name: _measure(name, commands[name]) for name in PROGRAMS if name in programs}
    if {"floor", "ours"} <= set(found):
        print(f"  ours takes {found['ours']['cpu_s'] / found['floor']['cpu_s']:.2f} times the floor's CPU seconds")
    return {
        name: found[name]["rows"] / found[name]["wall_s"] for name in sorted(found, key=lambda name: name != "ours")
    }


def _generated(folder: Path, num_rows: int) -> Path:
    lake = folder / f"generated-{num_rows}"
    if not lake.exists():
        subprocess.run(_program("benchmarks.generated_votes", lake.with_suffix(".part"), num_rows), check=True)
        lake.with_suffix(".part").rename(lake)
    return lake


def _program(module: str, *arguments: object) -> list[str]:
    return [sys.executable, "-m", module, *map(str, arguments)]


def _measure(name: str, command: list[str]) -> dict[str, Any]:
    """What the program says that it did and used."""
    out = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
    found: dict[str, Any] = json.loads(out.splitlines()[-1])
    print(
        f"  {name}: {found['rows']:,} rows in {found['wall_s']:.1f} s, {found['cpu_s']:.1f} CPU s "
        f"({1e6 * found['cpu_s'] / found['rows']:.1f} us a row), peak {_memory(found)}",
        flush=True,
    )
    for stage, used in found.get("stages", {}).items():
        print(f"    {stage:<33} {used['wall_s']:7.1f} s {used['cpu_s']:7.1f} CPU s, {_memory(used)}", flush=True)
    return found


def _memory(used: dict[str, float]) -> str:
    return f"{used['peak_mb']:,.0f} MB ({used['own_mb']:,.0f} without mapped files)"


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks data", description=__doc__)
    parser.add_argument("--rows", type=int, default=ROWS, help="events, five answers for each vote")
    parser.add_argument("--until", default="build_datasets", help="ours stops after this step")
    parser.add_argument("--programs", nargs="+", choices=PROGRAMS, default=PROGRAMS, help="run these only")
    parser.add_argument("--folder", type=Path, help="where generated events are kept for the next run")
    given = parser.parse_args(arguments)
    rates = run(given.rows, given.until, given.folder, given.programs)
    first, reference = next(iter(rates.items()))
    for name, rate in rates.items():
        print(f"  {name:<6} {rate:12,.0f} rows/s   {first} is {reference / rate:.2f} times this")
