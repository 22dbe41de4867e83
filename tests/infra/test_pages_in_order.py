"""The pages of Argo and Airflow, line by line: what a command needs was made by a command before it."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import kubernetes_validate
import pytest
import yaml

from support import argocd_tree, chart_facts, pod_security
from support.argocd_tree import ROOT

PAGES = ("argo.md", "airflow.md", "kubeflow.md", "infrastructure.md", "doctor.md")
OURS = ("ratchet-foundation", "model-pool", "release-services", "adapter-router")
GIVEN = {"default", "kube-system"}  # namespaces of every cluster
AFTER = {"kubeflow.md": "argo.md", "doctor.md": "argo.md"}  # pages that say that they begin where another one ends
# Namespaces that other people's manifests make, by a part of the address that is applied.
MADE_BY = {"cert-manager/releases": "cert-manager", "kubeflow/pipelines/manifests": "kubeflow"}
every = pytest.mark.parametrize("page", PAGES)


def commands(page: str) -> list[str]:
    """The shell's lines of a page, in order, each whole."""
    text = (ROOT / "docs" / page).read_text()
    fenced = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    indented = re.findall(r"(?:^    \S.*\n(?:^    .*\n)*)", text, re.MULTILINE)
    blocks = [(text.index(block), block) for block in (*fenced, *indented)]
    lines = "\n".join(block for _, block in sorted(blocks)).replace("\\\n", " ").splitlines()
    return [line.strip() for line in lines if line.strip()]


@dataclass
class Machine:
    """What commands have made so far."""

    namespaces: set[str] = field(default_factory=lambda: set(GIVEN))
    secrets: set[str] = field(default_factory=set)
    """namespace/name/key."""
    config_maps: set[str] = field(default_factory=set)
    variables: set[str] = field(default_factory=set)
    repositories: set[str] = field(default_factory=set)
    files: set[str] = field(default_factory=set)

    def run(self, line: str) -> None:
        if made := re.findall(r"kubectl create namespace (\S+)", line):
            self.namespaces |= set(made)
        if "--create-namespace" in line:
            self.namespaces |= set(re.findall(r"--namespace (\S+)", line))
        if "kubectl apply" in line:
            self.namespaces |= {namespace for address, namespace in MADE_BY.items() if address in line}
        if "-k infra/argocd/namespaces" in line:
            objects = argocd_tree.load(argocd_tree.ARGOCD / "namespaces" / "namespaces.yaml")
            self.namespaces |= {each["metadata"]["name"] for each in objects}
        if found := re.search(r"kubectl -n (\S+) create secret generic (\S+)", line):
            keys = re.findall(r"--from-(?:literal|file)=([\w-]+)=", line)
            self.secrets |= {f"{found[1]}/{found[2]}/{key}" for key in keys}
        if found := re.search(r"kubectl -n (\S+) create configmap (\S+)", line):
            self.config_maps.add(f"{found[1]}/{found[2]}")
        if found := re.search(r"helm repo add (\S+)", line):
            self.repositories.add(found[1])
        self.variables |= set(re.findall(r"export (\w+)=", line))
        self.files |= written(line)

    def missing(self, line: str) -> list[str]:
        """What a line uses that is not there."""
        namespaces = set() if "--create-namespace" in line else set(re.findall(r"(?:-n|--namespace) (\S+)", line))
        used = {
            "namespace": namespaces - self.namespaces,
            "variable": set(re.findall(r"\$\{?(RATCHET_\w+)", line)) - self.variables,
            "chart repository": set(re.findall(r"helm upgrade --install \S+ (\S+)/", line)) - self.repositories,
            "file": {path for path in paths(line) if not (ROOT / path).exists()} - self.files - written(line),
        }
        return [f"{what} {name}" for what, names in used.items() for name in sorted(names)]


def paths(line: str) -> set[str]:
    """Files of this repository, and those that a command reads whole."""
    ours = re.findall(r"(?<![\w/.-])((?:infra|charts|dags)/[\w./-]+)", line)
    return {*ours, *re.findall(r"--from-file=(?:\w+=)?(\S+)", line)}


def written(line: str) -> set[str]:
    return set(re.findall(r"> (\S+)", line)) | set(re.findall(r"\bcp \S+ (\S+)", line))


@every
def test_each_line_finds_what_it_uses(page: str) -> None:
    machine, lines = Machine(), commands(page)
    for line in commands(AFTER[page]) if page in AFTER else ():
        machine.run(line)
    assert len(lines) > 5
    for line in lines:
        assert machine.missing(line) == [], line
        machine.run(line)


def test_a_line_that_comes_too_early_is_found() -> None:
    machine = Machine()
    early = [
        "kubectl -n ratchet create secret generic x --from-literal=a=$RATCHET_GATE_TOKEN",
        "kubectl apply -f infra/argocd/nowhere.yaml",
        "helm upgrade --install airflow apache-airflow/airflow --namespace airflow",
    ]
    assert [len(machine.missing(line)) for line in early] == [2, 1, 2]
    for line in ("kubectl create namespace ratchet", "export RATCHET_GATE_TOKEN=1"):
        machine.run(line)
    assert machine.missing(early[0]) == []


def secrets_needed(environment: str) -> set[str]:
    """Every key of a Secret without which a pod of what the root brings does not start."""
    found: set[str] = set()
    for name in OURS:
        for each in argocd_tree.source(environment, name).objects():
            if each["kind"] == "Deployment":
                found |= {f"ratchet/{key}" for key in required(each["spec"]["template"])}
    for chart in ("airflow", "argo-workflows", "flagger"):
        facts = chart_facts.read(chart)
        for pod in facts["rendered"]["pods"].values():
            found |= {f"{facts['namespace']}/{key}" for key in pod["secrets"]}
    return found


def required(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        reference = value.get("secretKeyRef")
        if isinstance(reference, dict) and not reference.get("optional"):
            yield f"{reference['name']}/{reference['key']}"
        for each in value.values():
            yield from required(each)
    elif isinstance(value, list):
        for each in value:
            yield from required(each)


def test_every_secret_is_there_before_the_root_is_applied() -> None:
    machine = Machine()
    for line in commands("argo.md"):
        if "root.yaml" in line and "apply" in line:
            break
        machine.run(line)
    needed = secrets_needed("staging")
    assert len(needed) > 6
    assert needed <= machine.secrets


def test_by_hand_airflow_finds_the_files_that_its_pods_mount() -> None:
    machine = Machine()
    for line in commands("airflow.md"):
        machine.run(line)
    assert {"ratchet/ratchet-config", "airflow/ratchet-pods"} <= machine.config_maps


def test_what_a_person_applies_is_applied_before_the_root() -> None:
    lines = [line for line in commands("argo.md") if "kubectl apply" in line]
    order = ["namespaces", "projects.yaml", "root.yaml"]
    places = [next(number for number, line in enumerate(lines) if word in line) for word in order]
    assert places == sorted(places)
    assert "staging/project.yaml" in lines[places[1]]


def test_the_doctors_pod_is_valid_and_may_run_where_steps_do() -> None:
    text = (ROOT / "docs" / "doctor.md").read_text()
    (manifest,) = re.findall(r"<<'END'\n(.*?)\nEND\n", text, re.DOTALL)
    pod = yaml.safe_load(manifest)
    kubernetes_validate.validate(pod, "1.31", strict=True)
    assert pod_security.violations(pod["spec"]) == []


def test_whoever_approves_can_log_in_before_the_dags_start() -> None:
    lines = commands("airflow.md")
    made = next(number for number, line in enumerate(lines) if "airflow users create" in line)
    started = max(number for number, line in enumerate(lines) if "dags unpause" in line)
    text = (ROOT / "docs" / "airflow.md").read_text()
    assert made < started
    assert text.index("**5. ") < text.index("airflow users create"), "argo.md sends its readers to step 5"
