"""Argo's part played on this machine: the templates' own commands, in the order of their DAG.

Container paths become folders here as volumes do in a pod: an `emptyDir` is a fresh folder for each task, a ConfigMap
a folder with its keys as files. Images, resources and retries are the cluster's business and not played.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

Document = Mapping[str, Any]
TAG = re.compile(r"\{\{(.*?)\}\}")
CONDITION = re.compile(r"'([^']*)' (==|!=) '([^']*)'")
OPERAND = re.compile(r"([\w-]+)(?:\.(\w+))?")
FINE = ("Succeeded", "Skipped")  # what a `depends` without a result is content with


class TaskFailed(Exception):
    """A command ended badly: what it said last, as the pod's termination message would have it."""

    def __init__(self, task: str, code: int, stderr: str) -> None:
        super().__init__(f"{task}: exit code {code}: {stderr}")
        self.task, self.code = task, code


def config_map(lake: Path | str, settings: Path) -> Document:
    """The ConfigMap `ratchet-config`, which the chart release-services makes on a cluster."""
    data = {"lake": str(lake), "ratchet.yaml": settings.read_text(encoding="utf-8")}
    return {"kind": "ConfigMap", "metadata": {"name": "ratchet-config"}, "data": data}


def run_workflow(
    documents: Iterable[Document],
    parameters: Mapping[str, str],
    folder: Path,
    name: str = "ratchet-loop",
    answers: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Run a WorkflowTemplate's DAG; the manifest URI of each step that ran. Raises TaskFailed where a command fails.

    `documents` are the templates and the ConfigMaps that they read; `parameters` are the workflow's; `answers` is what
    a person writes into the form of a suspended node: without it, its time runs out.
    """
    cluster = _Cluster(list(documents), folder, answers or {})
    spec = cluster.get("WorkflowTemplate", name)["spec"]
    defaults = {each["name"]: each.get("value") for each in spec.get("arguments", {}).get("parameters", [])}
    scope = {f"workflow.parameters.{key}": value for key, value in {**defaults, **parameters}.items()}
    tasks = {task["name"]: task for task in _by_name(spec["templates"])[spec["entrypoint"]]["dag"]["tasks"]}
    uris, results = {}, dict[str, str]()
    for task in TopologicalSorter({key: set(_waits_for(task)) for key, task in tasks.items()}).static_order():
        if not _is_due(tasks[task], results):
            results[task] = "Omitted"
        elif not _holds(_filled(tasks[task].get("when", ""), scope)):
            results[task] = "Skipped"
        else:
            outputs = cluster.run(tasks[task], scope)
            results[task] = "Succeeded"
            scope |= {f"tasks.{task}.outputs.parameters.{key}": value for key, value in outputs.items()}
            if "uri" in outputs:
                uris[task.replace("-", "_")] = outputs["uri"]
    return uris


@dataclass
class _Cluster:
    documents: list[Document]
    folder: Path
    answers: Mapping[str, str]

    def get(self, kind: str, name: str) -> Document:
        wanted = (kind, name)
        return next(each for each in self.documents if (each["kind"], each["metadata"]["name"]) == wanted)

    def run(self, task: Document, scope: Mapping[str, str]) -> dict[str, str]:
        """Run a task's container, or ask a person; its output parameters."""
        reference = task["templateRef"]
        template = _by_name(self.get("WorkflowTemplate", reference["name"])["spec"]["templates"])[reference["template"]]
        if "suspend" in template:
            form = template["outputs"]["parameters"]
            return {each["name"]: self.answers.get(each["name"], each["valueFrom"]["default"]) for each in form}
        given = {
            each["name"]: _filled(each["value"], scope) for each in task.get("arguments", {}).get("parameters", [])
        }
        inputs = {f"inputs.parameters.{key}": value for key, value in given.items()}
        mounts = self._mount(template, task["name"])
        container = template["container"]
        command = [_here(_filled(word, inputs), mounts) for word in (*container["command"], *container["args"])]
        done = subprocess.run(command, env=self._environment(container, mounts), capture_output=True, text=True)
        if done.returncode:
            raise TaskFailed(task["name"], done.returncode, done.stderr)
        outputs = template.get("outputs", {}).get("parameters", [])
        return {each["name"]: Path(_here(each["valueFrom"]["path"], mounts)).read_text() for each in outputs}

    def _mount(self, template: Document, task: str) -> dict[str, str]:
        """Each mount path in the container, and the folder that stands for it."""
        volumes, mounts = _by_name(template["volumes"]), {}
        for mount in template["container"]["volumeMounts"]:
            place = self.folder / task / mount["name"]
            place.mkdir(parents=True, exist_ok=True)
            if config := volumes[mount["name"]].get("configMap"):
                for key, text in self.get("ConfigMap", config["name"])["data"].items():
                    (place / key).write_text(text)
            mounts[mount["mountPath"]] = str(place)
        return mounts

    def _environment(self, container: Document, mounts: Mapping[str, str]) -> dict[str, str]:
        """This machine's, so that `ratchet` is found, and above it the container's."""
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        return {**os.environ, "PATH": path, **{each["name"]: self._value(each, mounts) for each in container["env"]}}

    def _value(self, entry: Document, mounts: Mapping[str, str]) -> str:
        if "value" in entry:
            return _here(entry["value"], mounts)
        reference = entry["valueFrom"]["configMapKeyRef"]
        return str(self.get("ConfigMap", reference["name"])["data"][reference["key"]])


def _by_name(entries: Iterable[Document]) -> dict[str, Document]:
    return {entry["name"]: entry for entry in entries}


def _waits_for(task: Document) -> list[str]:
    return [found[1] for found in OPERAND.finditer(task.get("depends", ""))]


def _is_due(task: Document, results: Mapping[str, str]) -> bool:
    """`depends` as Argo reads it: a name alone is content with Succeeded and Skipped."""
    if "depends" not in task:
        return True
    held = OPERAND.sub(
        lambda found: str(results[found[1]] == found[2] if found[2] else results[found[1]] in FINE), task["depends"]
    )
    return bool(_truth(held))


def _filled(text: str, scope: Mapping[str, str]) -> str:
    return TAG.sub(lambda found: str(scope[found[1].strip()]), text)


def _holds(condition: str) -> bool:
    """A condition as Argo reads it, as far as ours go: comparisons of quoted words, joined."""
    return _truth(CONDITION.sub(lambda found: str((found[1] == found[3]) is (found[2] == "==")), condition) or "True")


def _truth(words: str) -> bool:
    """The value of True and False joined by `&&`, `||` and parentheses; anything else is a fault."""
    assert not re.sub(r"True|False|&&|\|\||[() ]", "", words), words
    return bool(eval(words.replace("&&", " and ").replace("||", " or ")))


def _here(text: str, mounts: Mapping[str, str]) -> str:
    """A container's path, alone or after a `=`, as a path on this machine."""
    known = "|".join(map(re.escape, mounts))
    return re.sub(rf"(^|=)({known})(?=/|$)", lambda found: found[1] + mounts[found[2]], text)
