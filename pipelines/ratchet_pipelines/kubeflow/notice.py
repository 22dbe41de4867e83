"""The notice at the end of a run: a line in the log, and a POST to RATCHET_NOTIFY_URL if that is set."""

import os

WEBHOOK = "RATCHET_NOTIFY_URL"
ENDS = {"SUCCEEDED": "succeeded", "COMPLETE": "succeeded", "FAILED": "failed"}
TIMEOUT_S = 10.0


def notify(lake: str, state: str, run: str, error: str) -> None:
    """Print and post how the run ended. Chat services read the key `text`.

    With nested pipelines Kubeflow may still report RUNNING here (kubeflow/pipelines#11979): then it is just "ended".
    """
    text = f"Ratchet run {run} on {lake} {ENDS.get(state, 'ended')}{f': {error}' if error else ''}"
    print(text)
    if url := os.environ.get(WEBHOOK):
        import httpx

        httpx.post(url, json={"text": text}, timeout=TIMEOUT_S).raise_for_status()
