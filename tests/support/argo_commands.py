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
    documents: Iterable[Document], parameters: Mapping[str, str], folder: Path, name: str = "ratchet-loop"
) -> dict[str, str]:
    """Run a WorkflowTemplate's DAG; the manifest URI of each step that ran. Raises TaskFailed where a command fails.

    `documents` are the templates and the ConfigMaps that they read; `parameters` are the workflow's.
    """
    cluster = _Cluster(list(documents), folder)
    spec = cluster.get("WorkflowTemplate", name)["spec"]
    defaults = {each["name"]: each.get("value") for each in spec.get("arguments", {}).get("parameters", [])}
    scope = {f"workflow.parameters.{key}": value for key, value in {**defaults, **parameters}.items()}
    tasks = {task["name"]: task for task in _by_name(spec["templates"])[spec["entrypoint"]]["dag"]["tasks"]}
    uris = {}
    for task in TopologicalSorter({key: set(_waits_for(task)) for key, task in tasks.items()}).static_order():
        if _holds(_filled(tasks[task].get("when", ""), scope)):
            outputs = cluster.run(tasks[task], scope)
            scope |= {f"tasks.{task}.outputs.parameters.{key}": value for key, value in outputs.items()}
            uris[task.replace("-", "_")] = outputs["uri"]
    return uris


@dataclass
class _Cluster:
    documents: list[Document]
    folder: Path

    def get(self, kind: str, name: str) -> Document:
        wanted = (kind, name)
        return next(each for each in self.documents if (each["kind"], each["metadata"]["name"]) == wanted)

    def run(self, task: Document, scope: Mapping[str, str]) -> dict[str, str]:
        """Run a task's container; its output parameters."""
        reference = task["templateRef"]
        template = _by_name(self.get("WorkflowTemplate", reference["name"])["spec"]["templates"])[reference["template"]]
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
        outputs = template["outputs"]["parameters"]
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
    return re.findall(r"[\w-]+", task.get("depends", ""))


def _filled(text: str, scope: Mapping[str, str]) -> str:
    return TAG.sub(lambda found: str(scope[found[1].strip()]), text)


def _holds(condition: str) -> bool:
    """A condition as Argo reads it, as far as ours go: comparisons of quoted words, joined by `||`."""
    comparisons = CONDITION.findall(condition)
    assert " || ".join("'{}' {} '{}'".format(*each) for each in comparisons) == condition
    return not comparisons or any((left == right) is (sign == "==") for left, sign, right in comparisons)


def _here(text: str, mounts: Mapping[str, str]) -> str:
    """A container's path, alone or after a `=`, as a path on this machine."""
    known = "|".join(map(re.escape, mounts))
    return re.sub(rf"(^|=)({known})(?=/|$)", lambda found: found[1] + mounts[found[2]], text)
