"""The demo, as a newcomer runs it: the real 135M model, real processes, both acts. Minutes."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from ratchet.release.ledger import read_ledger
from ratchet.store import open_store

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def test_the_demo_promotes_the_better_adapter_and_rolls_the_worse_one_back(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ratchet_pipelines.cli", "demo", "--lake", tmp_path], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "every place agrees" in done.stderr
    records = read_ledger(open_store(tmp_path / "1"))
    assert [record.event for record in records] == ["requested", "promoted", "requested", "rolled_back"]
    assert records[1].adapter.digest != records[3].adapter.digest
    report = (tmp_path / "1" / "report.html").read_text()
    assert records[1].adapter.digest[:12] in report
    assert not re.search(r'(src|href)="https?://', report), "the report must open without a network"
