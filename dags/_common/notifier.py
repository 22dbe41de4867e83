"""The one notifier: what failed or is late goes to the log, and to a webhook if the connection names one."""

import json
import urllib.request
from typing import Any

from airflow.sdk import BaseHook, BaseNotifier, Context
from airflow.sdk.exceptions import AirflowNotFoundException

CONNECTION = "ratchet_alerts"
TIMEOUT_S = 10


class Notify(BaseNotifier):
    """Say that a task failed or that a run is late.

    The connection `ratchet_alerts` may hold a webhook: `schema://host/path` and an optional bearer token as the
    password. It gets `{"text": ...}`, which Slack, Mattermost and Teams understand.
    """

    template_fields = ("what",)

    def __init__(self, what: str = "failed", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.what = what

    def notify(self, context: Context) -> None:
        text = describe(self.what, context)
        self.log.error(text)
        if (request := _webhook(text)) is not None:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
                self.log.info("told %s: %s", request.host, answer.status)


def describe(what: str, context: Any) -> str:
    """Which run or task, what happened to it, and why, in two lines. A late run has no task."""
    task, run = context.get("ti"), context["dag_run"]
    if task is None:
        return f"Ratchet: {run['dag_id']} {what}: {run['dag_run_id']}, due {context['deadline']['deadline_time']}"
    reason = str(context.get("exception") or "no exception; see the log")
    return f"Ratchet: {task.dag_id}.{task.task_id} {what} (try {task.try_number}, run {task.run_id})\n{reason}"


def _webhook(text: str) -> urllib.request.Request | None:
    try:
        found = BaseHook.get_connection(CONNECTION)
    except AirflowNotFoundException:
        return None
    if not found.host:
        return None
    headers = {"Content-Type": "application/json"}
    if found.password:
        headers["Authorization"] = f"Bearer {found.password}"
    address = found.host if "://" in found.host else f"{found.schema or 'https'}://{found.host}"
    return urllib.request.Request(address, json.dumps({"text": text}).encode(), headers)
