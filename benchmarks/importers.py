"""Memory of an import against the size of its file: it must not follow."""

import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path

WORDS = ["quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog", "while", "seven", "wizards", "boil", "jam"]
SIZES_MB = (25, 100)
IMPORT = """
import resource, sys
from pathlib import Path
from ratchet.ingest.importers import import_files
from ratchet.store import open_store
import_files(open_store(sys.argv[1]), "kto", [Path(sys.argv[2])])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def run(sizes_mb: tuple[int, ...] = SIZES_MB) -> dict[str, float]:
    """Peak MiB of a process that imports unpaired preferences in JSON lines, by the size of their file."""
    return {f"{size_mb} MB": _peak_mib(size_mb) for size_mb in sizes_mb}


def _peak_mib(size_mb: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "votes.jsonl"
        _write(file, size_mb * 1_000_000)
        command = [sys.executable, "-c", IMPORT, f"{folder}/lake", str(file)]
        return float(subprocess.run(command, capture_output=True, check=True).stdout)


def _write(path: Path, size_bytes: int) -> None:
    chance = random.Random(0)
    with path.open("w") as file:
        while file.tell() < size_bytes:
            prompt, completion = (" ".join(chance.choices(WORDS, k=count)) for count in (20, 80))
            file.write(json.dumps({"prompt": prompt, "completion": completion, "label": chance.random() < 0.5}) + "\n")
