"""The factory: one task from a step's name. On a laptop a process, in production a pod, with the same command."""

from collections.abc import Sequence
from typing import Any

from airflow.sdk import BaseOperator, XComArg

from _common.policies import step_policy
from _common.process import Process
from _common.resources import NEEDS
from _common.settings import SETTINGS, Settings


def step(
    name: str, settings: Settings = SETTINGS, options: Sequence[str] = (), **inputs: BaseOperator | XComArg
) -> BaseOperator:
    """The task of a step, after the tasks that its inputs come from. Its XCom is the command's `return.json`.

    An input is the step itself, or a task whose result holds `manifests`, the manifest of each step by name.
    """
    sources = {given: _operator(source) for given, source in inputs.items()}
    given = [part for source, task in sources.items() for part in ("--in", f"{source}={_manifest(source, task)}")]
    digests = {source: _digest(source, task) for source, task in sources.items()}
    made = command(name, name, *given, *options, settings=settings, input_digests=digests)
    for task in dict.fromkeys(sources.values()):
        task >> made
    return made


def command(
    task_id: str,
    name: str,
    *arguments: str,
    has_result: bool = True,
    settings: Settings = SETTINGS,
    input_digests: dict[str, str] | None = None,
) -> BaseOperator:
    """The task of any `ratchet` command. With `has_result` it must take `--out`."""
    needs = NEEDS[name]
    common: dict[str, Any] = {
        "pool": needs.pool,
        "pool_slots": 1,
        "execution_timeout": needs.timeout,
        "input_digests": input_digests,
        **step_policy(),
    }
    if settings.pods is None:
        return Process(
            task_id=task_id, program=settings.command, arguments=[name, *arguments], has_result=has_result, **common
        )
    from _common.pod import pod  # two seconds of Kubernetes client, that a laptop need not pay for

    return pod(task_id, [name, *arguments], needs, settings.pods, has_result=has_result, **common)


def _operator(source: BaseOperator | XComArg) -> BaseOperator:
    return source.operator if isinstance(source, XComArg) else source


def _manifest(step_name: str, task: BaseOperator) -> str:
    path = "['uri']" if task.task_id == step_name else f"['manifests']['{step_name}']"
    return f"{{{{ ti.xcom_pull('{task.task_id}'){path} }}}}"


def _digest(step_name: str, task: BaseOperator) -> str:
    """The manifest's digest, for lineage alone; empty where an event was announced before events had them."""
    path = "['digest']" if task.task_id == step_name else f".get('digests', {{}}).get('{step_name}', '')"
    return f"{{{{ ti.xcom_pull('{task.task_id}'){path} }}}}"
