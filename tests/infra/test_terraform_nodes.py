"""What must fit on a node: the needs of the steps and the rendered model pool, against Terraform's defaults."""

import json
import re
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from ratchet_pipelines.graph import NEEDS
from support.helm_chart import Chart
from support.terraform_code import CODE, body_of

FACTS = json.loads(Path(__file__).with_name("aws_nodes.json").read_text())
WORKFLOWS = CODE.parent / "argocd" / "workflows"
UNITS = {"": Fraction(1), "m": Fraction(1, 1000), "Mi": Fraction(1, 1024), "Gi": Fraction(1), "Ti": Fraction(1024)}


class Room(NamedTuple):
    """CPUs, and GiB of memory and disk."""

    cpu: Fraction
    memory: Fraction
    disk: Fraction

    def holds(self, other: "Room") -> bool:
        return all(have >= wanted for have, wanted in zip(self, other, strict=True))


class Group(NamedTuple):
    instances: list[str]
    disk_gib: int
    most: int
    labels: dict[str, str]
    taints: dict[str, str]


def amount(text: str | int) -> Fraction:
    number, unit = re.fullmatch(r"([0-9.]+)(m|Mi|Gi|Ti)?", str(text)).groups("")  # type: ignore[union-attr]
    return Fraction(number) * UNITS[unit]


def allocatable(instance: str, disk_gib: int, images: str) -> Room:
    """What a node of this type offers to pods, by EKS' own sums."""
    size, kept = FACTS["instances"][instance], FACTS["reserved"]
    percents = kept["cpu_percent_of_core"][: size["cpu"]]
    percents += [kept["cpu_percent_of_further_cores"]] * (size["cpu"] - len(percents))
    cpu = size["cpu"] - Fraction(str(sum(percents))) / 100 - Fraction(str(FACTS["daemons"]["cpu"]))
    seen = size["memory_gib"] * (1 - Fraction(str(kept["hypervisor_percent"])) / 100)
    mib = kept["memory_mib"] + kept["memory_mib_per_pod"] * size["max_pods"] + kept["memory_mib_evicts"]
    memory = seen - Fraction(mib, 1024) - Fraction(str(FACTS["daemons"]["memory_gib"]))
    disk = disk_gib * (1 - Fraction(kept["disk_percent_evicts"], 100)) - kept["disk_gib"] - FACTS["images_gib"][images]
    return Room(cpu, memory, disk)


def groups() -> dict[str, Group]:
    """The defaults of gpu_nodes.groups, one a line in variables.tf."""
    found = {}
    for name, fields in re.findall(r"^ {6}(\w+) += {(.*)}$", (CODE / "variables.tf").read_text(), re.MULTILINE):
        maps = {
            key: dict(re.findall(r'"([^"]+)" = "([^"]+)"', pairs))
            for key, pairs in re.findall(r"(\w+) = {(.*?)}", fields)
        }
        most = re.search(r"max_size = (\d+)", fields)
        found[name] = Group(
            instances=re.findall(r'"([^"]+)"', re.search(r"instance_types = \[(.*?)\]", fields)[1]),  # type: ignore[index]
            disk_gib=int(re.search(r"disk_gib = (\d+)", fields)[1]),  # type: ignore[index]
            most=int(most[1]) if most else 1,
            labels={"ratchet.dev/nodes": name, **maps.get("labels", {})},
            taints={"nvidia.com/gpu": "present", **maps.get("taints", {})},
        )
    return found


GROUPS = groups()
ON_GPUS = [name for name, needs in NEEDS.items() if needs.gpus]


def pool(**values: Any) -> dict[str, Any]:
    found: dict[str, Any] = Chart("model-pool").kinds(**values)["Deployment"]
    return found


def requested(pod: dict[str, Any], resource: str) -> Fraction:
    return sum((amount(each["resources"]["requests"].get(resource, 0)) for each in pod["containers"]), Fraction())


def test_there_is_a_group_for_training_and_one_for_serving() -> None:
    assert set(GROUPS) == {"training", "serving"}


@pytest.mark.parametrize("step", ON_GPUS)
def test_step_fits_on_a_node_for_training(step: str) -> None:
    needs = NEEDS[step]
    wanted = Room(amount(needs.cpu), amount(needs.memory), amount(needs.ephemeral_storage))
    for instance in GROUPS["training"].instances:
        assert FACTS["instances"][instance]["gpus"] >= needs.gpus
        assert allocatable(instance, GROUPS["training"].disk_gib, "training").holds(wanted)


def test_a_smaller_node_for_training_would_not_do() -> None:
    """The first two were the default and the one that its 64 GiB promise."""
    needs = NEEDS["train_adapter"]
    wanted = Room(amount(needs.cpu), amount(needs.memory), amount(needs.ephemeral_storage))
    for instance in ("g6.xlarge", "g6.4xlarge", "g6e.2xlarge"):
        assert not allocatable(instance, GROUPS["training"].disk_gib, "training").holds(wanted)


def test_pod_of_the_pool_fits_on_a_node_for_serving() -> None:
    pod = pool()["spec"]["template"]["spec"]
    wanted = Room(*(requested(pod, resource) for resource in ("cpu", "memory", "ephemeral-storage")))
    for instance in GROUPS["serving"].instances:
        assert FACTS["instances"][instance]["gpus"] >= requested(pod, "nvidia.com/gpu")
        assert allocatable(instance, GROUPS["serving"].disk_gib, "serving").holds(wanted)


def test_pool_asks_for_the_disk_that_its_volumes_may_fill() -> None:
    """What no pod asked for, the kubelet takes back by evicting pods, this one first."""
    pod = pool()["spec"]["template"]["spec"]
    limits = [volume["emptyDir"] for volume in pod["volumes"] if "emptyDir" in volume]
    on_disk = sum((amount(each["sizeLimit"]) for each in limits if each.get("medium") != "Memory"), Fraction())
    assert requested(pod, "ephemeral-storage") >= on_disk
    claimed = pool(cache={"claimName": "weights"})["spec"]["template"]["spec"]
    assert requested(claimed, "ephemeral-storage") < requested(pod, "ephemeral-storage")


@pytest.mark.parametrize("replicas", [1, 2])
def test_there_are_nodes_for_every_pod_of_the_pool_while_it_is_replaced(replicas: int) -> None:
    spec = pool(replicas=replicas)["spec"]
    gpus = min(FACTS["instances"][instance]["gpus"] for instance in GROUPS["serving"].instances)
    assert GROUPS["serving"].most * gpus >= spec["replicas"] + spec["strategy"]["rollingUpdate"]["maxSurge"]


def _tolerates(tolerations: list[dict[str, Any]], taints: dict[str, str]) -> bool:
    return all(
        any(
            each["key"] == key and (each.get("operator") == "Exists" or each.get("value") == value)
            for each in tolerations
        )
        for key, value in taints.items()
    )


def _may_run(pod: dict[str, Any], group: Group) -> bool:
    """Whether Kubernetes would place the pod on this group's nodes: taints, selector, and required affinity."""
    terms = (
        pod.get("affinity", {})
        .get("nodeAffinity", {})
        .get("requiredDuringSchedulingIgnoredDuringExecution", {})
        .get("nodeSelectorTerms", [])
    )
    fits = [
        all(group.labels.get(each["key"]) not in each["values"] for each in term["matchExpressions"])
        for term in terms
        if all(each["operator"] == "NotIn" for each in term["matchExpressions"])
    ]
    selects = all(group.labels.get(key) == value for key, value in pod.get("nodeSelector", {}).items())
    return _tolerates(pod.get("tolerations", []), group.taints) and selects and (not terms or any(fits))


def test_pool_takes_serving_and_never_trainings_gpu() -> None:
    pod = pool()["spec"]["template"]["spec"]
    assert _may_run(pod, GROUPS["serving"])
    assert not _may_run(pod, GROUPS["training"])


def test_pool_may_run_where_nodes_have_no_label_of_ours() -> None:
    assert _may_run(pool()["spec"]["template"]["spec"], Group([], 0, 1, {}, {"nvidia.com/gpu": "present"}))


def test_steps_of_argo_on_gpus_take_trainings_node_and_never_servings() -> None:
    templates = yaml.safe_load((WORKFLOWS / "ratchet-steps.yaml").read_text())["spec"]["templates"]
    on_gpus = {
        each["name"]: each
        for each in templates
        if "nvidia.com/gpu" in each.get("container", {}).get("resources", {}).get("limits", {})
    }
    assert len(on_gpus) >= len(ON_GPUS)
    for template in on_gpus.values():
        assert _may_run(template, GROUPS["training"])
        assert not _may_run(template, GROUPS["serving"])


def test_every_step_without_a_gpu_fits_on_a_general_node() -> None:
    nodes = body_of((CODE / "platform" / "variables.tf").read_text(), 'variable "nodes"')
    instances = re.findall(r'"([a-z0-9]+\.[a-z0-9]+)"', nodes)
    disk_gib = int(re.search(r"disk_gib\s*= optional\(number, (\d+)\)", nodes)[1])  # type: ignore[index]
    assert instances
    for needs in (each for each in NEEDS.values() if not each.gpus):
        wanted = Room(amount(needs.cpu), amount(needs.memory), amount(needs.ephemeral_storage))
        assert all(allocatable(instance, disk_gib, "general").holds(wanted) for instance in instances)
