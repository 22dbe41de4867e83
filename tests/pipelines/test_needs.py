"""The one table of needs: what Airflow reads is generated from it, and every shipped pod asks for what it says."""

import os
from pathlib import Path

import pytest
import yaml

from ratchet.config import Config
from ratchet.needs import ENVIRONMENT_SECRET, GATE_SECRET, GIT_SECRET, RELEASE_ACCOUNT, Needs
from ratchet_pipelines.graph import NEEDS, STEPS, needs_json

ROOT = Path(__file__).resolve().parents[2]
AIRFLOWS = ROOT / "dags" / "_common" / "needs.json"


def test_the_table_that_airflow_reads_is_the_golden_one() -> None:
    if os.environ.get("REGENERATE_GOLDEN"):
        AIRFLOWS.write_text(needs_json())
    assert AIRFLOWS.read_text() == needs_json(), "run `make golden`"


def test_every_step_says_what_it_needs_and_only_a_device_needs_a_gpu() -> None:
    sections = Config.model_fields.items()
    with_device = {name for name, section in sections if "device" in getattr(section.annotation, "model_fields", {})}
    assert {step.name for step in STEPS if step.needs.gpus} == with_device


def test_only_what_releases_has_the_right_to_push_and_to_ask_the_gate() -> None:
    trusted = {name for name, needs in NEEDS.items() if needs.service_account == RELEASE_ACCOUNT}
    assert trusted == {"release_adapter", "reconcile", "approve"}
    for secret in (GIT_SECRET, GATE_SECRET):
        assert {name for name, needs in NEEDS.items() if secret in needs.secrets} == trusted - {"approve"}
    assert all(ENVIRONMENT_SECRET in needs.secrets for needs in NEEDS.values())


def test_without_a_gpu_nothing_is_asked_for_that_belongs_to_one() -> None:
    needs = Needs(cpu="8", memory="64Gi", gpus=1, shared_memory="8Gi", cpu_only=("2", "16Gi")).without_gpu()
    assert (needs.cpu, needs.memory, needs.gpus, needs.shared_memory) == ("2", "16Gi", 0, None)
    plain = Needs(cpu="3")
    assert plain.without_gpu() == plain


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)
def test_argo_asks_for_what_the_table_says(step) -> None:
    (document,) = yaml.safe_load_all((ROOT / "infra/argocd/workflows/ratchet-steps.yaml").read_text())
    name = step.name.replace("_", "-")
    template = next(each for each in document["spec"]["templates"] if each["name"] == name)
    asked, needs = template["container"]["resources"], step.needs
    assert (asked["requests"]["cpu"], asked["limits"]["memory"]) == (needs.cpu, needs.memory)
    assert asked["limits"]["ephemeral-storage"] == needs.ephemeral_storage
    assert int(asked["limits"].get("nvidia.com/gpu", 0)) == needs.gpus
    assert template["activeDeadlineSeconds"] == needs.timeout_s


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)
def test_kubeflow_asks_for_what_the_table_says(step) -> None:
    spec, platform = yaml.safe_load_all((ROOT / "tests/pipelines/kubeflow/golden/ir/ratchet.yaml").read_text())
    name, needs = f"exec-{step.name.replace('_', '-')}", step.needs
    asked = spec["deploymentSpec"]["executors"][name]["container"]["resources"]
    assert (asked["resourceCpuRequest"], asked["resourceMemoryLimit"]) == (needs.cpu, needs.memory)
    assert int(asked.get("accelerator", {}).get("resourceCount", 0)) == needs.gpus
    cluster = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"][name]
    assert int(cluster["activeDeadlineSeconds"]) == needs.timeout_s
