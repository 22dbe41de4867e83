import logging
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from ratchet.config import Config
from ratchet.lease import Watch, acquire, exclusive, new_holder, release
from ratchet.manifest import Artifact, StepOutput
from ratchet.step import Step, run_step
from ratchet.store import LocalStore, Store

KEY = "queue/train_adapter.json"
TAKE_AND_DIE = """
import os, sys
from ratchet.lease import acquire, new_holder
from ratchet.store import open_store
assert acquire(open_store(sys.argv[1]), sys.argv[2], new_holder(), now=0.0, lease_s=1e12)
os._exit(9)
"""


def test_a_run_that_waited_for_the_same_work_finds_it_done(lake: Store) -> None:
    at_work = []

    def work(*_: object) -> StepOutput:
        at_work.append(threading.current_thread())
        time.sleep(0.2)
        return StepOutput(outputs={"out": Artifact(uri="x", digest="y")})

    step = Step(name="train_adapter", run=work, is_exclusive=True)
    with ThreadPoolExecutor(2) as both:
        runs = list(both.map(lambda _: run_step(step, Config(), {}, lake), range(2)))
    assert sorted(run.is_new for run in runs) == [False, True]
    assert runs[0].manifest == runs[1].manifest
    assert len(at_work) == 1


def test_works_of_one_step_never_overlap_and_the_one_that_waits_says_so(
    lake: Store, caplog: pytest.LogCaptureFixture
) -> None:
    order: list[str] = []

    def work(name: str) -> None:
        with exclusive(lake, "train_adapter"):
            order.append(f"{name} begins")
            time.sleep(0.2)
            order.append(f"{name} ends")

    with caplog.at_level(logging.WARNING), ThreadPoolExecutor(2) as both:
        list(both.map(work, ("one", "two")))
    assert order in (
        ["one begins", "one ends", "two begins", "two ends"],
        ["two begins", "two ends", "one begins", "one ends"],
    )
    assert "is at work on" in caplog.text


def test_a_killed_holder_on_this_machine_keeps_nobody_waiting(lake: Store) -> None:
    done = subprocess.run([sys.executable, "-c", TAKE_AND_DIE, lake.root, KEY])
    assert done.returncode == 9
    assert acquire(lake, KEY, new_holder(), now=1.0, lease_s=5.0)


def test_a_holder_that_renews_keeps_the_lease_and_one_that_is_gone_loses_it(lake: Store) -> None:
    here, there = "one-host:1:abc", "another-host:1:abc"
    assert acquire(lake, KEY, here, now=0.0, lease_s=10)
    assert acquire(lake, KEY, here, now=6.0, lease_s=10)
    assert not acquire(lake, KEY, there, now=15.0, lease_s=10)
    assert acquire(lake, KEY, there, now=17.0, lease_s=10)
    assert not acquire(lake, KEY, here, now=18.0, lease_s=10)


def test_a_holder_whose_clock_was_an_hour_ahead_keeps_nobody_waiting_once_it_is_gone(lake: Store) -> None:
    ahead, waiting, watch = "another-host:1:ahead", "one-host:1:waiting", Watch()
    assert acquire(lake, KEY, ahead, now=3600.0, lease_s=0.3)
    for renewed_at in (3600.2, 3600.4):  # while it lives, it renews, and keeps it
        time.sleep(0.2)
        assert acquire(lake, KEY, ahead, now=renewed_at, lease_s=0.3)
        assert not acquire(lake, KEY, waiting, now=1.0, lease_s=0.3, watch=watch)
    time.sleep(0.35)
    assert acquire(lake, KEY, waiting, now=1.0, lease_s=0.3, watch=watch)
    assert not acquire(lake, KEY, ahead, now=1.1, lease_s=0.3)


def test_a_lease_that_is_let_go_is_free_at_once_and_only_by_its_holder(lake: Store) -> None:
    mine, other = "another-host:1:mine", "another-host:2:other"
    assert acquire(lake, KEY, mine, now=0.0, lease_s=5.0)
    release(lake, KEY, other)
    assert not acquire(lake, KEY, other, now=0.0, lease_s=5.0)
    release(lake, KEY, mine)
    assert acquire(lake, KEY, other, now=0.0, lease_s=5.0)


def test_work_is_done_though_the_store_is_away_when_the_lease_should_end(
    lake: LocalStore, caplog: pytest.LogCaptureFixture
) -> None:
    class Away(LocalStore):
        def replace(self, key: str, data: bytes, expected: bytes) -> None:
            raise ConnectionError("no route to the store")

    with exclusive(Away(lake.path), "train_adapter"):
        lake.create("made", b"")
    assert "could not be released" in caplog.text
    assert acquire(lake, KEY, "another-host:1:next", now=time.time() + 60, lease_s=5.0)
