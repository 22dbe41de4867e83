"""Tell people that a workflow failed, and why: on stderr always, to a chat's webhook if RATCHET_NOTIFY_URL names one.

Run by the templates' exit handler, which passes Argo's `workflow.*` variables as WORKFLOW_*.
"""

import json
import os
import sys
from typing import Any

import httpx


def message(workflow: str, status: str, failures: str) -> str:
    """One line for the workflow, one for each node that failed with what it said."""
    lines = [f"{node['displayName']}: {node['message']}" for node in _nodes(failures) if node["message"]]
    return "\n".join([f"Argo workflow {workflow}: {status}", *dict.fromkeys(lines)])


def _nodes(failures: str) -> list[dict[str, Any]]:
    """Argo quotes the JSON once more, so that it survives substitution into a template."""
    plain = json.loads(failures or "[]")
    nodes: list[dict[str, Any]] = json.loads(plain) if isinstance(plain, str) else plain
    return nodes


def main() -> None:
    told = message(*(os.environ[f"WORKFLOW_{name}"] for name in ("WORKFLOW", "STATUS", "FAILURES")))
    print(told, file=sys.stderr)
    if url := os.environ.get("RATCHET_NOTIFY_URL"):
        httpx.post(url, json={"text": told}, timeout=10).raise_for_status()


if __name__ == "__main__":
    main()
