"""Report a failed workflow and why: on stderr, and to the chat webhook that RATCHET_NOTIFY_URL names.

Run by the templates' exit handler, which passes Argo's `workflow.*` variables as WORKFLOW_*.
"""

import json
import os
import sys
from typing import Any

import httpx


def message(workflow: str, status: str, failures: str) -> str:
    """Return one line for the workflow, and one with the message of each failed node."""
    lines = [f"{node['displayName']}: {node['message']}" for node in _nodes(failures) if node["message"]]
    return "\n".join([f"Argo workflow {workflow}: {status}", *dict.fromkeys(lines)])


def _nodes(failures: str) -> list[dict[str, Any]]:
    """Argo quotes the JSON once more, so that it survives substitution into a template."""
    plain = json.loads(failures or "[]")
    nodes: list[dict[str, Any]] = json.loads(plain) if isinstance(plain, str) else plain
    return nodes


def main() -> None:
    text = message(*(os.environ[f"WORKFLOW_{name}"] for name in ("WORKFLOW", "STATUS", "FAILURES")))
    print(text, file=sys.stderr)
    if url := os.environ.get("RATCHET_NOTIFY_URL"):
        httpx.post(url, json={"text": text}, timeout=10).raise_for_status()


if __name__ == "__main__":
    main()
