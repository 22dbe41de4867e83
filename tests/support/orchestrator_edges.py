"""Which step reads which, as each front door has it: from what it ships, not from the graph that it was made from."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

Edges = dict[str, list[str]]
ASIDE = {"ask_person", "approve"}  # a person's yes, which no step reads


def airflow_edges(dags: Iterable[Any]) -> Edges:
    """By what each step's own command is given with --in."""
    commands = [task.arguments for dag in dags for task in dag.tasks if hasattr(task, "program")]
    steps = {args[0]: re.findall(r"^(\w+)=", "\n".join(args), re.MULTILINE) for args in commands}
    return {name: inputs for name, inputs in steps.items() if name not in ("drift", "reconcile")}


def kubeflow_edges(spec: Mapping[str, Any]) -> Edges:
    """By the parameters of a compiled pipeline's components, which are named after the steps that they come from."""
    components = {
        name.removeprefix("comp-").replace("-", "_"): component["inputDefinitions"]["parameters"]
        for name, component in spec["components"].items()
        if "executorLabel" in component and name != "comp-notify"
    }
    return {name: [given for given in parameters if given in components] for name, parameters in components.items()}


def argo_edges(template: Mapping[str, Any]) -> Edges:
    """By what each task of a WorkflowTemplate's DAG depends on."""
    spec = template["spec"]
    dag = next(each["dag"] for each in spec["templates"] if each["name"] == spec["entrypoint"])
    operands = {_step(task["name"]): re.findall(r"[\w-]+(?:\.\w+)?", task.get("depends", "")) for task in dag["tasks"]}
    steps = operands.keys() - ASIDE
    named = {name: [_step(before.partition(".")[0]) for before in befores] for name, befores in operands.items()}
    return {name: [before for before in named[name] if before in steps] for name in operands if name in steps}


def _step(task_name: str) -> str:
    return task_name.replace("-", "_")
