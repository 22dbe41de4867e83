"""Runs the collector in children that die: killed at a line, on a full disk, or beside each other.

A script, so that children are forked from a process in which no library has started threads yet.
Prints JSON: what an undisturbed lake holds (`clean`), and what each disturbed one holds after another run.
"""

import json
import os
import resource
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from ratchet.collection.collect_triplets import STEP
from ratchet.config import Config
from ratchet.lake import schema, tables
from ratchet.step import run_step
from ratchet.store import open_store

WATCHED = (
    "/store.py", "/tables.py", "/intents.py", "/collected.py", "/event_files.py", "/spill.py", "/collection.py",
    "/collect_triplets.py", "/step.py",
)  # fmt: skip


def in_child(work: Callable[[], object]) -> int:
    """The wait status of a child that does the work."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1]


def collect(lake: Path) -> None:
    run_step(STEP, Config(), {}, open_store(lake))


def collect_until(lake: Path, num_lines: int, report: Path | None = None) -> None:
    """Collect, killed when so many lines of the watched files have run; or count them all."""
    seen = 0

    def trace(frame, event, arg):
        nonlocal seen
        if not frame.f_code.co_filename.endswith(WATCHED):
            return None
        if event == "line":
            seen += 1
            if seen == num_lines:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    sys.settrace(trace)
    collect(lake)
    sys.settrace(None)
    if report:
        report.write_text(str(seen))


def collect_with_file_limit(lake: Path, num_bytes: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, num_bytes))
    collect(lake)


def describe(lake: Path, out: Path) -> None:
    """Finish the lake's work and say what it holds."""
    store = open_store(lake)
    manifest = run_step(STEP, Config(), {}, store).manifest
    triplets = tables.scan(store, schema.TRIPLETS, 2**40).sort("triplet_id").collect()
    found = {
        "digest": manifest.outputs["triplets"].digest,
        "triplets": triplets["triplet_id"].to_list(),
        "interactions": tables.scan(store, schema.INTERACTIONS, 2**40).collect()["interaction_id"].sort().to_list(),
        "feedback": tables.scan(store, schema.FEEDBACK, 2**40).collect()["feedback_id"].sort().to_list(),
    }
    out.write_text(json.dumps(found))


def finish(lake: Path, later: Path) -> dict[str, object]:
    """What the lake holds when more has landed and it is collected again."""
    shutil.copytree(later / "events", lake / "events", dirs_exist_ok=True)
    out = lake.with_suffix(".json")
    assert in_child(lambda: describe(lake, out)) == 0
    return json.loads(out.read_text())


def copy(lake: Path, name: str) -> Path:
    return Path(shutil.copytree(lake, lake.with_name(name)))


def killed(first: Path, later: Path, num_points: int) -> list[dict[str, object]]:
    report = first.with_name("lines")
    assert in_child(lambda: collect_until(copy(first, "counted"), -1, report)) == 0
    num_lines = int(report.read_text())
    results = []
    for point in range(num_points):
        lake = copy(first, f"killed-{point}")
        status = in_child(lambda lake=lake, point=point: collect_until(lake, 1 + point * num_lines // num_points))
        assert os.WTERMSIG(status) == signal.SIGKILL
        results.append(finish(lake, later))
    return results


def full(first: Path, later: Path, limits: list[int]) -> list[dict[str, object]]:
    results = []
    for limit in limits:
        lake = copy(first, f"full-{limit}")
        assert os.WEXITSTATUS(in_child(lambda lake=lake, limit=limit: collect_with_file_limit(lake, limit))) == 1
        assert not list((lake / "manifests").rglob("*.json"))
        results.append(finish(lake, later))
    return results


def together(first: Path, later: Path, num_writers: int) -> list[dict[str, object]]:
    lake = copy(first, "together")
    children = []
    for _ in range(num_writers):
        child = os.fork()
        if child == 0:
            collect(lake)
            os._exit(0)
        children.append(child)
    shutil.copytree(later / "events", lake / "events", dirs_exist_ok=True)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * num_writers
    return [finish(lake, later)]


if __name__ == "__main__":
    # Imported, not used: the children share the cost, and no thread is running yet.
    import deltalake  # noqa: F401
    import polars_hash  # noqa: F401
    import pyarrow.dataset  # noqa: F401
    import rich.progress  # noqa: F401

    import ratchet.collection.exactly_once  # noqa: F401

    places = Path(sys.argv[1]), Path(sys.argv[2])
    clean = finish(copy(places[0], "clean"), places[1])
    results = {
        "killed": killed(*places, num_points=12),
        "full": full(*places, limits=[0, 400, 2000]),
        "together": together(*places, num_writers=3),
    }
    print(json.dumps({"clean": clean, **results}))
