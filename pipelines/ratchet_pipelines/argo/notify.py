"""Report a failed workflow and why: on stderr, and to the chat webhook that RATCHET_NOTIFY_URL names.

Run by the templates' exit handler, which passes Argo's `workflow.*` variables as WORKFLOW_*.
"""

import json
import os
import sys

import httpx


def message(workflow: str, status: str, failures: str) -> str:
    """Return one line for the workflow, and one with the message of each failed node."""
    nodes = json.loads(failures or "[]")
    if isinstance(nodes, str):  # Argo quotes the JSON once more, so that it survives substitution into a template
        nodes = json.loads(nodes)
    lines = [f"{node['displayName']}: {node['message']}" for node in nodes if node["message"]]
    return "\n".join([f"Argo workflow {workflow}: {status}", *dict.fromkeys(lines)])


def main() -> None:
    text = message(*(os.environ[f"WORKFLOW_{name}"] for name in ("WORKFLOW", "STATUS", "FAILURES")))
    print(text, file=sys.stderr)
    if url := os.environ.get("RATCHET_NOTIFY_URL"):
        httpx.post(url, json={"text": text}, timeout=10).raise_for_status()


if __name__ == "__main__":
    main()
