"""The offline gate's report as Markdown: what a person reads before approving a release."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

HEAD = "| check | verdict | candidate | incumbent | difference | interval | why |\n|---|---|---|---|---|---|---|"


def gate_report(adapter: Mapping[str, Any]) -> str:
    """`adapter` is what the adapter's event carries."""
    facts = {
        "Adapter": f"`{adapter['digest']}`",
        "Dataset": f"`{adapter['dataset_digest']}`, {adapter['triplets']} triplets",
        "Trained because": adapter["reason"],
        "Verdict": f"**{adapter['verdict']}**: {_plain(adapter['why'])}",
    }
    lines = "\n".join(f"- {name}: {value}" for name, value in facts.items())
    return f"{lines}\n\n{_table(adapter['checks'])}"


def _table(checks: Sequence[Mapping[str, Any]]) -> str:
    return "\n".join([HEAD, *(_row(check) for check in checks)]) if checks else "There were no checks."


def _row(check: Mapping[str, Any]) -> str:
    name = check["name"] + ("" if check["required"] else " (informs)")
    bounds = f"{check['low']:.3f} to {check['high']:.3f}" if check["low"] is not None else "alarm only"
    numbers = " | ".join(f"{check[key]:.3f}" for key in ("candidate", "incumbent", "difference"))
    return f"| {name} | {check['verdict']} | {numbers} | {bounds} | {_plain(check['why'])} |"


def _plain(text: str) -> str:
    """Return text that Markdown shows as it is: tenants name themselves, and the form renders HTML."""
    return escape(" ".join(text.split())).translate({ord(sign): f"\\{sign}" for sign in "|`[]"})
