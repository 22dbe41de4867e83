"""Every acknowledged vote is in the lake exactly once: both arms' router processes, real S3 server, calls that fail."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ratchet.collection.collect_triplets import STEP
from ratchet.config import Config
from ratchet.ingest.landing import land
from ratchet.lake.schema import TRIPLETS
from ratchet.lake.tables import scan
from ratchet.step import run_step
from ratchet.store import Store, open_store
from support.event_factory import interaction
from support.faulty_proxy import failing
from support.s3_server import s3_server

SECRET = "the secret of the router under load"
LOAD = Path(__file__).parents[1] / "support" / "vote_load.py"


@contextmanager
def router(lake: str, **env: str) -> Iterator[str]:
    own = {
        "RATCHET_POOL_URL": "http://127.0.0.1:9",
        "RATCHET_LAKE": lake,
        "RATCHET_PORT": "0",
        "RATCHET_SECRET": SECRET,
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "ratchet.router.app"],
        env={**os.environ, **own, **env},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr
        yield process.stderr.readline().removeprefix("router: ").strip()
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)


def send_votes(urls: tuple[str, ...], rate: float, seconds: float) -> dict[str, float]:
    command = [sys.executable, str(LOAD), ",".join(urls), SECRET, str(rate), str(seconds)]
    sent: dict[str, float] = json.loads(subprocess.check_output(command, text=True))
    return sent


def collected(store: Store) -> list[str]:
    """Who voted, once for each triplet."""
    number = run_step(STEP, Config(), {}, store).manifest.facts["collections"][-1]
    return scan(store, TRIPLETS, number).select("subject_id").collect()["subject_id"].to_list()


@pytest.mark.parametrize(
    ("rate", "seconds"),
    [(200, 2), pytest.param(1000, 60, marks=[pytest.mark.slow, pytest.mark.timeout(600)])],
    ids=["a-moment", "a-minute-at-1000"],
)
def test_acknowledged_votes_are_collected_once_though_s3_fails_one_call_in_five(rate: float, seconds: float) -> None:
    with s3_server("lake") as s3:
        store = open_store("s3://lake/live")
        land(store, [interaction(f"i{number}") for number in range(1000)])
        with (
            failing(s3, every=5) as (endpoint, proxy),
            router("s3://lake/live", AWS_ENDPOINT_URL=endpoint, RATCHET_ARM="canary") as canary,
            router("s3://lake/live", AWS_ENDPOINT_URL=endpoint, RATCHET_ARM="primary") as primary,
        ):
            sent = send_votes((canary, primary), rate, seconds)
        print(sent, dict(proxy.calls))
        assert sent["acknowledged"] == sent["sent"] == rate * seconds
        assert proxy.calls.total() - proxy.calls["none"] >= proxy.calls.total() // 5 > 0
        assert sorted(collected(store)) == sorted(f"u{number}" for number in range(int(sent["sent"])))
