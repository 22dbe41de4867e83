"""The data layer from landed events to datasets: rows a second, CPU seconds and peak memory, beside a peer and a floor.

The same generated files go through three programs, each in a process of its own: ours; the floor, DuckDB reading,
joining and writing them with no logic at all; and the peer, the usual pandas, Great Expectations and datasketch, on a
sample that it can finish. `python -m benchmarks data --rows 6000000` is the size that the goals are set for.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROWS = 120_000  # for `make bench`; fixed costs (imports, Great Expectations) weigh on it
PEER_ROWS = 20_000
PROGRAMS = {"ours": "benchmarks.data_pipeline", "floor": "benchmarks.data_floor", "peer": "benchmarks.data_peer"}


def run(num_rows: int = ROWS) -> dict[str, float]:
    """Rows a second of each program. Prints CPU seconds, memory and, for ours, the stages."""
    rates = {}
    with tempfile.TemporaryDirectory(prefix="ratchet-bench-") as folder:
        for name, program in PROGRAMS.items():
            lake = Path(folder) / ("sample" if name == "peer" else "lake")
            rows = min(PEER_ROWS, num_rows) if name == "peer" else num_rows
            if not lake.exists():
                subprocess.run([sys.executable, "-m", "benchmarks.generated_votes", lake, str(rows)], check=True)
            found = _measure(program, lake)
            rates[name] = found["rows"] / found["wall_s"]
            print(
                f"  {name}: {found['rows']:,} rows in {found['wall_s']:.1f} s, {found['cpu_s']:.1f} CPU s "
                f"({1e6 * found['cpu_s'] / found['rows']:.1f} us a row), peak {found['peak_mb']:,.0f} MB"
            )
            for stage, used in found.get("stages", {}).items():
                print(f"    {stage:<18} {used['wall_s']:7.1f} s {used['cpu_s']:7.1f} CPU s, {used['peak_mb']:,.0f} MB")
    return rates


def _measure(program: str, lake: Path) -> dict[str, Any]:
    """What the program says of itself, and what the system says of its process."""
    with tempfile.TemporaryFile() as out:
        child = subprocess.Popen([sys.executable, "-m", program, str(lake)], stdout=out)
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            raise RuntimeError(f"{program} ended with {child.returncode}")
        out.seek(0)
        found = json.loads(out.read().splitlines()[-1])
    return {**found, "peak_mb": used.ru_maxrss / 1024}


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks data", description=__doc__)
    parser.add_argument("--rows", type=int, default=ROWS, help="events, five answers for each vote")
    rates = run(parser.parse_args(arguments).rows)
    for name, rate in rates.items():
        print(f"  {name:<6} {rate:12,.0f} rows/s   ours is {rates['ours'] / rate:.2f} times this")
