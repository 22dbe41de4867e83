"""The notice of a failure: what it says, and that it arrives."""

import json
import os
import subprocess
import sys

import pytest

from ratchet_pipelines.argo.notify import message
from support.webhook_server import receiver

NODES = [
    {"displayName": "train-adapter", "message": "main: Error (exit code 2): the disk is full", "phase": "Failed"},
    {"displayName": "main", "message": "", "phase": "Failed"},
]
QUOTED = json.dumps(json.dumps(NODES))  # as Argo fills in {{workflow.failures}}


@pytest.mark.parametrize("failures", [QUOTED, json.dumps(NODES)], ids=["as Argo quotes it", "plain"])
def test_the_step_that_failed_is_named_with_its_message(failures: str) -> None:
    assert message("ratchet-loop-x", "Failed", failures).splitlines() == [
        "Argo workflow ratchet-loop-x: Failed",
        "train-adapter: main: Error (exit code 2): the disk is full",
    ]


def test_a_workflow_that_failed_without_a_node_is_still_told() -> None:
    assert message("ratchet-loop-x", "Error", "") == "Argo workflow ratchet-loop-x: Error"


def test_the_notice_reaches_stderr_and_the_webhook() -> None:
    told = {"WORKFLOW_WORKFLOW": "ratchet-loop-x", "WORKFLOW_STATUS": "Failed", "WORKFLOW_FAILURES": QUOTED}
    with receiver() as (url, got):
        done = subprocess.run(
            [sys.executable, "-m", "ratchet_pipelines.argo.notify"],
            env={**os.environ, **told, "RATCHET_NOTIFY_URL": url},
            capture_output=True,
            text=True,
        )
    assert done.returncode == 0, done.stderr
    assert [each["body"] for each in got] == [{"text": done.stderr.strip()}]
    assert "the disk is full" in done.stderr
