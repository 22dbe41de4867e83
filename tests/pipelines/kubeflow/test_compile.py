"""The compiled pipelines: golden files, the shared graph, the form, the cache, and nothing installed at run time."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ratchet.errors import UserError
from ratchet_pipelines.graph import NEEDS, STEPS
from ratchet_pipelines.kubeflow.compile import compile_pipelines
from ratchet_pipelines.kubeflow.pipelines import Images
from support.orchestrator_edges import kubeflow_edges

GOLDEN = Path(__file__).parent / "golden"
NAMES = ["ratchet", "ratchet-data", "ratchet-release", "ratchet-train-and-evaluate"]
FILES = [f"{form}/{name}.yaml" for form in ("ir", "kubernetes") for name in NAMES]
STEP_NAMES = {step.name for step in STEPS}
Spec = dict[str, Any]


def specs(folder: Path) -> dict[str, Spec]:
    return {name: next(yaml.safe_load_all((folder / f"ir/{name}.yaml").read_text())) for name in NAMES}


def dags(spec: Spec) -> Iterator[Spec]:
    """The root's tasks, and those of every nested pipeline, condition and exit handler."""
    yield spec["root"]["dag"]["tasks"]
    yield from (component["dag"]["tasks"] for component in spec["components"].values() if "dag" in component)


def tasks(spec: Spec) -> dict[str, Spec]:
    return {name: task for dag in dags(spec) for name, task in dag.items()}


def containers(spec: Spec) -> dict[str, Spec]:
    """The containers of a pipeline by the name of the function that they run."""
    executors = (executor["container"] for executor in spec["deploymentSpec"]["executors"].values())
    return {container["args"][-1]: container for container in executors}


def test_the_command_writes_the_golden_files(compiled: Path) -> None:
    written = {str(file.relative_to(compiled)) for file in compiled.rglob("*.yaml")}
    assert written == set(FILES)
    for name in FILES:
        text = (compiled / name).read_text()
        if os.environ.get("REGENERATE_GOLDEN") == "1":
            (GOLDEN / name).parent.mkdir(exist_ok=True, parents=True)
            (GOLDEN / name).write_text(text)
        assert text == (GOLDEN / name).read_text(), "run once with REGENERATE_GOLDEN=1 and review the difference"


def test_the_whole_has_the_steps_and_edges_of_the_shared_graph(compiled: Path) -> None:
    whole = specs(compiled)["ratchet"]
    assert set(containers(whole)) - {"notify"} == STEP_NAMES
    assert kubeflow_edges(whole) == {step.name: sorted(step.inputs) for step in STEPS}


def test_each_parameter_comes_from_the_step_of_its_name(compiled: Path) -> None:
    spec = specs(compiled)["ratchet"]
    nested = spec["components"]["comp-ratchet-train-and-evaluate"]["dag"]
    for task in nested["tasks"].values():
        for name, source in task["inputs"]["parameters"].items():
            producer = source.get("taskOutputParameter", {}).get("producerTask", name)
            assert producer.replace("-", "_") == name


def test_the_three_parts_make_up_the_whole(compiled: Path) -> None:
    parts = specs(compiled)
    whole = containers(parts.pop("ratchet"))
    whole.pop("notify")
    assert whole == {name: container for part in parts.values() for name, container in containers(part).items()}


@pytest.mark.parametrize("name", NAMES)
def test_every_argument_is_explained_and_there_are_few(compiled: Path, name: str) -> None:
    arguments = specs(compiled)[name]["root"]["inputDefinitions"]["parameters"]
    assert len(arguments) <= 10
    assert all(argument.get("description") for argument in arguments.values())
    assert specs(compiled)[name]["pipelineInfo"]["description"]


def test_the_dataset_and_the_adapter_are_outputs_of_their_own_kind(compiled: Path) -> None:
    """So that a pipeline of somebody else's may take them as inputs, and the UI draws them at the pipeline."""
    outputs = {
        name: spec["root"].get("outputDefinitions", {}).get("artifacts", {}) for name, spec in specs(compiled).items()
    }
    kinds = {
        name: {key: each["artifactType"]["schemaTitle"] for key, each in made.items()} for name, made in outputs.items()
    }
    assert kinds["ratchet-data"] == {"dataset": "system.Dataset"}
    assert kinds["ratchet-train-and-evaluate"] == {"adapter": "system.Model"}


@pytest.mark.parametrize("name", NAMES)
def test_what_looks_at_the_world_is_never_cached(compiled: Path, name: str) -> None:
    cached = {task for task, spec in tasks(specs(compiled)[name]).items() if spec.get("cachingOptions")}
    assert cached <= {"validate-triplets", "build-datasets", "train-adapter"}


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_installed_and_every_image_is_named_by_digest(compiled: Path, images: Images, name: str) -> None:
    for function, container in containers(specs(compiled)[name]).items():
        assert "pip install" not in " ".join(container["command"])
        needs_gpu = bool(NEEDS[function].gpus)
        assert container["image"] == (images.cuda if needs_gpu else images.cpu)
        assert ("accelerator" in container["resources"]) == needs_gpu


def test_without_a_cuda_image_no_gpu_is_asked_for(images: Images, tmp_path: Path) -> None:
    compile_pipelines(Images(cpu=images.cpu), tmp_path, "kubeflow")
    text = "".join(file.read_text() for file in tmp_path.rglob("*.yaml"))
    assert "nvidia" not in text
    assert "/dev/shm" not in text


def test_an_image_without_a_digest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="by digest"):
        compile_pipelines(Images(cpu="registry.example.com/ratchet-components:latest"), tmp_path, "kubeflow")


@pytest.mark.parametrize("name", NAMES)
def test_kubernetes_objects_hold_what_is_uploaded_otherwise(compiled: Path, name: str) -> None:
    documents = list(yaml.safe_load_all((compiled / f"ir/{name}.yaml").read_text()))
    pipeline, version = yaml.safe_load_all((compiled / f"kubernetes/{name}.yaml").read_text())
    assert (pipeline["kind"], version["kind"]) == ("Pipeline", "PipelineVersion")
    assert version["spec"]["pipelineName"] == pipeline["metadata"]["name"] == name
    assert [version["spec"]["pipelineSpec"], version["spec"]["platformSpec"]] == documents


def test_a_version_is_named_by_what_it_holds(compiled: Path, images: Images, tmp_path: Path) -> None:
    compile_pipelines(Images(cpu=images.cpu), tmp_path, "kubeflow")
    names = {
        list(yaml.safe_load_all((folder / "kubernetes/ratchet.yaml").read_text()))[1]["metadata"]["name"]
        for folder in (compiled, tmp_path)
    }
    assert len(names) == 2


def test_every_task_on_the_cluster_has_retries_a_timeout_and_its_secrets_by_name(compiled: Path) -> None:
    spec, platform = yaml.safe_load_all((compiled / "ir/ratchet.yaml").read_text())
    settings = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    for function in STEP_NAMES | {"notify"}:
        task = function.replace("_", "-")
        assert int(settings[f"exec-{task}"]["activeDeadlineSeconds"]) > 0
        assert tasks(spec)[task]["retryPolicy"]["maxRetryCount"] > 0
        named = {secret["secretName"]: secret["optional"] for secret in settings[f"exec-{task}"]["secretAsEnv"]}
        assert named == dict.fromkeys(NEEDS[function].secrets, True)


def test_the_command_line_is_free_of_kfp() -> None:
    code = "import sys, ratchet_pipelines.cli.main, ratchet_pipelines.cli.compile; assert 'kfp' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_component_in_its_pod_does_not_import_kfp(compiled: Path) -> None:
    """The image holds kfp's runtime alone, without what the compiler needs."""
    code = "import sys, ratchet_pipelines.kubeflow.steps; assert 'kfp' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
