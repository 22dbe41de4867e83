"""The compiled templates: golden files, Argo's own schemas with unknown fields refused, and the loop's graph."""

import copy
import os
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from ratchet.config import Config
from ratchet_pipelines.argo.compile import compile_documents, file_name, write_documents
from ratchet_pipelines.argo.lint import lint
from ratchet_pipelines.argo.settings import Settings
from ratchet_pipelines.argo.workflows import PARTS
from ratchet_pipelines.graph import BY_NAME, NEEDS, STEPS
from ratchet_pipelines.profiles import profile_path
from support import crd_schemas

ROOT = Path(__file__).resolve().parents[3]
GOLDEN = ROOT / "infra" / "argocd" / "workflows"  # not a copy: what Argo CD applies
SETTINGS = Settings(image="ratchet-components:0.1.0", cuda_image="ratchet-components-cuda:0.1.0")
DOCUMENTS = compile_documents(SETTINGS)


def spec_of(name: str, kind: str = "WorkflowTemplate", documents: list[dict[str, Any]] = DOCUMENTS) -> dict[str, Any]:
    found = next(each for each in documents if (each["kind"], each["metadata"]["name"]) == (kind, name))
    spec: dict[str, Any] = found["spec"]
    return spec


def containers(documents: list[dict[str, Any]] = DOCUMENTS) -> dict[str, dict[str, Any]]:
    templates = spec_of("ratchet-steps", documents=documents)["templates"]
    return {template["name"]: template for template in templates if "container" in template}


def tasks_of(name: str, template: str = "main") -> list[dict[str, Any]]:
    dag = next(each for each in spec_of(name)["templates"] if each["name"] == template)["dag"]
    tasks: list[dict[str, Any]] = dag["tasks"]
    return tasks


def edges_of(name: str) -> dict[str, set[str]]:
    """The steps that each step waits for."""
    edges = {task["name"]: set(re.findall(r"[\w-]+", task.get("depends", ""))) for task in tasks_of(name)}
    steps = {step.name.replace("_", "-") for step in STEPS}
    return {task: before & steps for task, before in edges.items() if task in steps}


def test_what_argo_cd_applies_is_what_the_code_compiles(tmp_path: Path) -> None:
    if os.environ.get("REGENERATE_GOLDEN") == "1":
        write_documents(SETTINGS, GOLDEN)
    made = {path.name: path.read_text() for path in write_documents(SETTINGS, tmp_path)}
    there = {path.name: path.read_text() for path in GOLDEN.glob("ratchet-*.yaml")}
    assert made == there, "run once with REGENERATE_GOLDEN=1 and review the difference"


@pytest.mark.parametrize("document", DOCUMENTS, ids=file_name)
def test_every_object_is_valid_by_argos_schema(document: dict[str, Any]) -> None:
    crd_schemas.check(document, "argo-workflows")


def test_schema_check_refuses_a_misspelt_field() -> None:
    broken = copy.deepcopy(DOCUMENTS[0])
    broken["spec"]["templates"][0]["retryStrategi"] = {}
    with pytest.raises(jsonschema.ValidationError, match="retryStrategi"):
        crd_schemas.check(broken, "argo-workflows")


def test_the_loop_has_the_steps_and_edges_of_the_graph() -> None:
    graph = {step.name: set(step.inputs) for step in STEPS}
    named = {task: {name.replace("-", "_") for name in before} for task, before in edges_of("ratchet-loop").items()}
    assert {task.replace("-", "_"): before for task, before in named.items()} == graph


def test_the_parts_together_are_the_loop_and_take_what_they_do_not_make() -> None:
    assert [step for steps in PARTS.values() for step in steps] == list(STEPS)
    for name, steps in PARTS.items():
        inside = {step.name for step in steps}
        missing = {needed.replace("_", "-") for step in steps for needed in step.inputs if needed not in inside}
        asked = {parameter["name"] for parameter in spec_of(name).get("arguments", {}).get("parameters", [])}
        assert asked - {"scheduler", "approved-by", "why"} == missing


def test_every_task_gets_the_manifests_that_its_step_reads() -> None:
    for task in tasks_of("ratchet-loop"):
        if task["name"] in ("collect-triplets", "ask-person", "approve"):
            continue
        given = {each["name"]: each["value"] for each in task.get("arguments", {}).get("parameters", [])}
        wanted = [name.replace("_", "-") for name in BY_NAME[task["name"].replace("-", "_")].inputs]
        assert given == {name: f"{{{{tasks.{name}.outputs.parameters.uri}}}}" for name in wanted}


def test_release_follows_a_pass_or_a_persons_word() -> None:
    tasks = {task["name"]: task for task in tasks_of("ratchet-loop")}
    for name in ("release-adapter", "ask-person"):
        assert "register-adapter.outputs.parameters.decision}}' == 'pass'" in tasks[name]["when"]
        assert "'{{workflow.parameters.force}}' == 'true'" in tasks[name]["when"]
    assert {name for name, task in tasks.items() if "when" in task} == {"release-adapter", "ask-person", "approve"}


def test_a_person_is_asked_in_argos_own_form_and_no_answer_is_a_no() -> None:
    template = next(each for each in spec_of("ratchet-steps")["templates"] if each["name"] == "ask-person")
    form = {each["name"]: each for each in template["inputs"]["parameters"]}
    said = {each["name"]: each["valueFrom"] for each in template["outputs"]["parameters"]}
    assert set(form) == set(said)  # the pairs that Argo's UI makes a field of
    assert form["answer"]["enum"] == ["approve", "reject"]
    assert all(each["supplied"] == {} for each in said.values())
    assert said["answer"]["default"] == form["answer"]["default"] == "reject"
    assert float(template["suspend"]["duration"]) < spec_of("ratchet-loop")["activeDeadlineSeconds"]


def test_one_training_and_one_release_at_a_time() -> None:
    held = {name: template.get("synchronization", {}).get("mutexes") for name, template in containers().items()}
    assert held.pop("train-adapter") == [{"name": "ratchet-train"}]
    assert held.pop("release-adapter") == [{"name": "ratchet-release"}]
    assert not any(held.values())


def test_a_users_mistake_is_not_retried_and_all_else_is() -> None:
    for template in containers().values():
        assert template["retryStrategy"]["retryPolicy"] == "Always"
        assert template["retryStrategy"]["expression"] == "asInt(lastRetry.exitCode) != 2"
        assert "maxDuration" not in template["retryStrategy"]["backoff"]


def test_a_failed_node_shows_what_the_step_said() -> None:
    assert {each["container"]["terminationMessagePolicy"] for each in containers().values()} == {
        "FallbackToLogsOnError"
    }


def test_containers_run_without_privileges() -> None:
    for template in containers().values():
        assert template["securityContext"]["runAsNonRoot"] is True
        context = template["container"]["securityContext"]
        assert context["readOnlyRootFilesystem"] is True
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}


def test_steps_that_use_a_device_ask_for_a_gpu_only_with_a_cuda_image() -> None:
    sections = Config.model_fields.items()
    assert {step.name for step in STEPS if step.needs.gpus} == {
        name for name, section in sections if "device" in getattr(section.annotation, "model_fields", {})
    }
    on_gpu = {
        name for name, each in containers().items() if "nvidia.com/gpu" in each["container"]["resources"]["limits"]
    }
    assert on_gpu == {"train-adapter", "evaluate-adapter"}
    assert all(containers()[name]["tolerations"][0]["key"] == "nvidia.com/gpu" for name in on_gpu)
    on_cpu = yaml.safe_dump(compile_documents(Settings(image="ratchet-components:0.1.0")))
    assert "gpu" not in on_cpu
    assert "cuda" not in on_cpu


def test_only_the_release_may_push_to_git_and_see_the_canary() -> None:
    for name, template in containers().items():
        secrets = [source["secretRef"]["name"] for source in template["container"]["envFrom"]]
        is_release = name == "release-adapter"
        assert ("ratchet-git" in secrets) is ("ratchet-gate" in secrets) is is_release
        writes_ledger = name in ("release-adapter", "approve")
        assert (template.get("serviceAccountName") == "ratchet-release") is writes_ledger


def test_the_release_outlasts_its_own_timeout() -> None:
    gpu = yaml.safe_load(profile_path("gpu").read_text())
    assert NEEDS["release_adapter"].timeout_s > gpu["release_adapter"]["timeout_s"]


def test_images_come_from_the_settings_alone() -> None:
    image = "registry.example.com/ratchet-components@sha256:" + "1" * 64
    text = yaml.safe_dump(compile_documents(Settings(image=image)), width=1000)
    assert set(re.findall(r"image: (\S+)", text)) == {image}


def test_a_workflow_ends_with_a_report_and_word_of_a_failure() -> None:
    for name in ("ratchet-loop", *PARTS):
        assert spec_of(name)["onExit"] == "on-exit"
        report, notify = tasks_of(name, "on-exit")
        assert notify["when"] == "'{{workflow.status}}' != 'Succeeded'"
        assert all(task["continueOn"] == {"failed": True, "error": True} for task in (report, notify))


def test_the_schedule_starts_one_loop_at_a_time() -> None:
    chosen = Settings(image="x:1", schedule="7 * * * *", is_scheduled=True)
    cron = spec_of("ratchet-loop", "CronWorkflow", compile_documents(chosen))
    assert (cron["schedules"], cron["suspend"]) == (["7 * * * *"], False)
    assert cron["concurrencyPolicy"] == "Forbid"
    assert cron["workflowSpec"]["workflowTemplateRef"] == {"name": "ratchet-loop"}


def test_the_schedule_is_off_unless_it_is_chosen_and_says_whose_run_it_starts() -> None:
    cron = spec_of("ratchet-loop", "CronWorkflow")
    assert cron["suspend"] is True
    assert cron["workflowSpec"]["arguments"]["parameters"] == [{"name": "scheduler", "value": "argo"}]


def test_the_linter_finds_nothing() -> None:
    assert lint(DOCUMENTS) == []
