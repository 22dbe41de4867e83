import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from ratchet.compute.process_pool import ProcessPool
from ratchet.errors import UserError


def nothing() -> None:
    pass


def sign(folder: Path, name: str) -> None:
    (folder / name).write_text(f"{os.getpid()} {os.environ.get('POLARS_MAX_THREADS', '')}")


def refuse(name: str) -> None:
    raise UserError(f"not {name}")


def die(name: str) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(("number", "threads"), [(2, "3"), (1, None), (0, None)])
def test_work_is_done_elsewhere_unless_one_process_is_enough(tmp_path: Path, number: int, threads: str | None):
    with ProcessPool(number, cores=6, initializer=nothing) as processes:
        processes.for_each(partial(sign, tmp_path), ["a", "b", "c"])
    signed = [(tmp_path / name).read_text().split() for name in "abc"]
    assert all((pid == str(os.getpid())) == (number < 2) for pid, *_ in signed)
    assert threads is None or {found for _, found in signed} == {threads}


@pytest.mark.parametrize("number", [1, 2])
def test_what_work_raises_is_raised(number: int):
    with pytest.raises(UserError, match="not a"), ProcessPool(number, cores=2, initializer=nothing) as processes:
        processes.for_each(refuse, ["a"])


def test_a_process_that_was_killed_is_said():
    with (
        pytest.raises(UserError, match="for want of memory"),
        ProcessPool(2, cores=2, initializer=nothing) as processes,
    ):
        processes.for_each(die, ["a"])


WAITING = """
import sys, time
from functools import partial
from pathlib import Path
from ratchet.compute.process_pool import ProcessPool
from test_process_pool import nothing, sign, wait

if __name__ == "__main__":
    with ProcessPool(2, cores=2, initializer=nothing) as processes:
        processes.for_each(partial(wait, Path(sys.argv[1])), ["a", "b"])
"""


def wait(folder: Path, name: str) -> None:
    sign(folder, name)
    time.sleep(60)


def test_nobody_stays_when_the_one_who_mapped_the_work_is_killed(tmp_path: Path):
    (tmp_path / "waiting.py").write_text(WAITING)
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    started = subprocess.Popen(
        [sys.executable, tmp_path / "waiting.py", tmp_path], env={**os.environ, "PYTHONPATH": paths}
    )
    pids = [int(text.split()[0]) for text in wait_for(tmp_path / "a", tmp_path / "b")]
    started.kill()
    started.wait()
    deadline = time.monotonic() + 20
    while any(is_alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(is_alive(pid) for pid in pids)


def wait_for(*files: Path) -> list[str]:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        found = [file.read_text() for file in files if file.exists()]
        if len(found) == len(files) and all(found):
            return found
        time.sleep(0.05)
    raise TimeoutError(files)


def is_alive(pid: int) -> bool:
    """A zombie is not: nobody may be there to collect it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
