"""The laptop's form of a step, with real processes: results, messages, retries, kills."""

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("airflow.sdk", reason="runs in Airflow's environment: .venv-airflow/bin/pytest tests/dags")

from airflow.sdk import RetryAction

from _common.failures import Broke, Lost, Refused
from _common.policies import RETRY_POLICY
from _common.process import Process

PATIENCE_S = 30.0
WRITES_RESULT = "import json; Path(sys.argv[-1], 'return.json').write_text(json.dumps({'step': sys.argv[1]}))"
REFUSES = "print('error: 7 of 9 rows lack a vote', file=sys.stderr); sys.exit(2)"
BREAKS = "raise ZeroDivisionError('a bug')"
IS_KILLED = "os.kill(os.getpid(), 9)"


@pytest.fixture
def program(tmp_path: Path) -> Callable[[str], str]:
    """A stand-in for `ratchet`: an executable that runs some Python."""

    def write(code: str) -> str:
        path = tmp_path / "program"
        path.write_text(f"#!{sys.executable}\nimport os, subprocess, sys, time\nfrom pathlib import Path\n{code}\n")
        path.chmod(0o755)
        return str(path)

    return write


def process(program: str, *, has_result: bool = True) -> Process:
    return Process(task_id="build_datasets", program=program, arguments=["build_datasets"], has_result=has_result)


def decide(error: BaseException) -> RetryAction:
    return RETRY_POLICY.evaluate(error, 1, 3).action


def test_the_result_is_what_the_command_left(program: Callable[[str], str]) -> None:
    assert process(program(WRITES_RESULT)).run_command() == {"step": "build_datasets"}


def test_a_command_without_result_gives_none(program: Callable[[str], str]) -> None:
    assert process(program("assert sys.argv[1:] == ['build_datasets']"), has_result=False).run_command() is None


def test_a_refusal_shows_its_own_message_and_is_not_retried(program: Callable[[str], str]) -> None:
    with pytest.raises(Refused, match="7 of 9 rows lack a vote") as caught:
        process(program(REFUSES)).run_command()
    assert decide(caught.value) is RetryAction.FAIL


def test_a_bug_shows_its_traceback_and_is_retried(program: Callable[[str], str]) -> None:
    with pytest.raises(Broke, match="ZeroDivisionError: a bug") as caught:
        process(program(BREAKS)).run_command()
    assert decide(caught.value) is RetryAction.DEFAULT


def test_a_killed_command_is_retried(program: Callable[[str], str]) -> None:
    with pytest.raises(Lost, match="killed") as caught:
        process(program(IS_KILLED)).run_command()
    assert decide(caught.value) is RetryAction.RETRY


def test_a_missing_program_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(Broke, match="make setup"):
        process(str(tmp_path / "absent")).run_command()


@pytest.mark.parametrize("stubborn", ["", "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)"])
def test_a_kill_reaches_the_whole_group(
    program: Callable[[str], str], tmp_path: Path, stubborn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("_common.process.GRACE_S", 0.5)
    child = "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])"
    pids = tmp_path / "pids"
    code = (
        f"{stubborn}\nchild = {child}\nPath({str(pids)!r}).write_text(f'{{os.getpid()}} {{child.pid}}')\nchild.wait()"
    )
    task = process(program(code), has_result=False)
    errors: list[BaseException] = []
    running = threading.Thread(target=lambda: errors.append(caught(lambda: task.run_command())))
    running.start()
    wait_for(lambda: pids.exists() and len(pids.read_text().split()) == 2)
    task.on_kill()
    running.join(PATIENCE_S)
    assert isinstance(errors[0], Lost)
    wait_for(lambda: not any(is_alive(int(pid)) for pid in pids.read_text().split()))


def caught(work: Callable[[], object]) -> BaseException:
    try:
        work()
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


def wait_for(claim: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not claim():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_alive(pid: int) -> bool:
    with contextlib.suppress(ProcessLookupError, FileNotFoundError):
        os.kill(pid, 0)
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[:1]
    return False
