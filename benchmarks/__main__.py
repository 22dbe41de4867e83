"""Run every benchmark and print each arm as a ratio to the first.

`python -m benchmarks NAME …` runs one, which may take arguments; see its --help. The first line says on what machine
and commit; benchmarks/results holds what these commands printed.
"""

import importlib
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

# Those that time nothing beside another are run by name only, such as `flood`.
BENCHMARKS = {  # by module, and function where it is not `run`
    "training": "DPO, pairs/min (8 pairs of PandaLM, embedded model)",
    "data": "votes to datasets, rows/s (6M events)",
    "generation": "generation, tokens/s (64 chats, embedded model)",
    "adapters": "mixed adapters, tokens/s (32 rows: base and two adapters of rank 8)",
    "importers": "importing JSON lines, peak MiB by size of file (flat is 1)",
    "gate": "gate, answers/s (one caller, 20,000 votes weighed meanwhile)",
    "router": "router, requests a core-second (beside LiteLLM's proxy)",
    "validation": "triplets judged and scrubbed, rows/s (1M rows)",
    "datasets": "datasets, triplets/s (200 000 votes, nearly as many prompts)",
    "datasets.run_near_duplicates": "near duplicates, prompts/s",
    "evaluation": "offline gate, intervals/s (2,000 draws of 2,000 votes; ours by conversation)",
}


def main() -> None:
    for place, title in BENCHMARKS.items():
        module, _, function = place.partition(".")
        compare(title, getattr(importlib.import_module(f"benchmarks.{module}"), function or "run")())
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


def one(name: str, arguments: list[str]) -> None:
    module = importlib.import_module(f"benchmarks.{name}")
    if hasattr(module, "main"):
        module.main(arguments)
    else:
        compare(BENCHMARKS[name], module.run())


def compare(title: str, arms: Mapping[str, float]) -> None:
    ours, first = next(iter(arms.items()))
    print(title)
    for name, rate in arms.items():
        print(f"  {name:<14} {rate:10.1f}   {ours} is {first / rate:.2f} times this")


def machine() -> str:
    """What all figures of a run depend on."""
    cpus = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True).stdout.strip()
    return f"{os.cpu_count()} cores{cpus[0].partition(':')[2]}, Python {platform.python_version()}, commit {commit}"


if __name__ == "__main__":
    print(machine())
    if len(sys.argv) > 1:
        one(sys.argv[1], sys.argv[2:])
    else:
        main()
