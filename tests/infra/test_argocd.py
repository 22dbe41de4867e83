"""What Argo CD follows: valid by its schemas, complete, with no more rights than its objects need, and in agreement."""

import json
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import kubernetes_validate
import pytest
import yaml

from ratchet.adapter_ref import AdapterRef
from ratchet.config import Config, load_config
from ratchet.rehearsal.argo import merge, render
from ratchet.release.reconciler.gitops import ReleaseValues, adapter_in, with_values
from support import crd_schemas

ROOT = Path(__file__).resolve().parents[2]
ARGOCD = ROOT / "infra" / "argocd"
ENVIRONMENTS = ("staging", "production")
DIGEST = re.compile(r"@sha256:[0-9a-f]{64}$")
Objects = list[dict[str, Any]]


def read(environment: str, name: str) -> Objects:
    return list(yaml.safe_load_all((ARGOCD / environment / name).read_text()))


def applications(environment: str) -> dict[str, dict[str, Any]]:
    return {each["metadata"]["name"]: each for each in read(environment, "applications.yaml")}


def projects(environment: str) -> dict[str, dict[str, Any]]:
    documents = read(environment, "root.yaml")
    return {each["metadata"]["name"]: each["spec"] for each in documents if each["kind"] == "AppProject"}


def sources(application: dict[str, Any]) -> Objects:
    spec = application["spec"]
    return list(spec["sources"] if "sources" in spec else [spec["source"]])


def source(environment: str, name: str) -> dict[str, Any]:
    found: dict[str, Any] = applications(environment)[name]["spec"]["source"]
    return found


def values(environment: str, name: str) -> dict[str, Any]:
    """The values of one of our charts, as Argo CD layers them."""
    place = source(environment, name)
    files = [ROOT / place["path"] / file for file in place["helm"]["valueFiles"]]
    layers = [yaml.safe_load(file.read_text()) for file in (ROOT / place["path"] / "values.yaml", *files)]
    return merge(*layers)


@cache
def rendered(environment: str, name: str) -> dict[tuple[str, str], dict[str, Any]]:
    """One of our charts as Argo CD renders it."""
    made = render(ROOT / source(environment, name)["path"], values(environment, name), "ratchet")
    return {(each["kind"], each["metadata"]["name"]): each for each in made}


def settings(environment: str, tmp_path: Path) -> Config:
    path = tmp_path / "ratchet.yaml"
    path.write_text(values(environment, "release-services")["config"])
    return load_config(path)


OURS = ("model-pool", "release-services", "adapter-router")
both = pytest.mark.parametrize("environment", ENVIRONMENTS)


@both
def test_every_object_is_valid_by_argo_cds_schema(environment: str) -> None:
    for document in read(environment, "root.yaml") + read(environment, "applications.yaml"):
        crd_schemas.check(document, "argo-cd")


@both
def test_plain_objects_are_valid_kubernetes(environment: str) -> None:
    for document in read(environment, "foundation.yaml") + read(environment, "airflow.yaml"):
        kubernetes_validate.validate(document, "1.31", strict=True)


def test_environments_differ_in_names_and_nothing_else() -> None:
    for name in sorted(path.name for path in (ARGOCD / "staging").iterdir() if path.is_file()):
        texts = [(ARGOCD / environment / name).read_text() for environment in ENVIRONMENTS]
        neutral = [re.sub(r"staging[.]|staging|production|\bmain\b", "", text) for text in texts]
        if name not in ("adapter.yaml", "model-pool.yaml"):
            assert neutral[0].split() == neutral[1].split(), name


@both
def test_waves_start_with_controllers_and_end_with_what_uses_them(environment: str) -> None:
    waves = {
        name: int(each["metadata"]["annotations"]["argocd.argoproj.io/sync-wave"])
        for name, each in applications(environment).items()
    }
    order = [
        {"flagger", "argo-workflows"},
        {"ratchet-foundation"},
        {"model-pool"},
        {"adapter-router", "release-services"},
        {"workflows"},
        {"airflow"},
    ]
    assert [{name for name in waves if waves[name] == wave} for wave in range(len(order))] == order
    assert len(waves) == sum(map(len, order))


@both
def test_every_path_is_there(environment: str) -> None:
    for place in [each for application in applications(environment).values() for each in sources(application)]:
        folder = ROOT / place.get("path", "")
        files = [file.replace("$ratchet", str(ROOT)) for file in place.get("helm", {}).get("valueFiles", [])]
        files += [place["directory"]["include"]] if "directory" in place else []
        assert folder.is_dir()
        assert all((folder / file).is_file() for file in files), files


@both
def test_the_root_follows_the_same_branch_as_its_children(environment: str) -> None:
    root = next(each for each in read(environment, "root.yaml") if each["kind"] == "Application")["spec"]["source"]
    assert root["path"] == f"infra/argocd/{environment}"
    for place in [each for application in applications(environment).values() for each in sources(application)]:
        if "path" in place:
            assert (place["repoURL"], place["targetRevision"]) == (root["repoURL"], root["targetRevision"])


@both
def test_our_project_allows_the_kinds_that_any_values_make_and_no_others(environment: str) -> None:
    project = projects(environment)["ratchet"]
    objects = [each for name in OURS for each in with_everything(environment, name)] + read(
        environment, "foundation.yaml"
    )
    objects += [yaml.safe_load(path.read_text()) for path in (ARGOCD / "workflows").glob("ratchet-*.yaml")]
    made = {(group_of(each), each["kind"]) for each in objects}
    allowed = {(each["group"], each["kind"]) for each in project["namespaceResourceWhitelist"]}
    assert made == allowed
    assert project["clusterResourceWhitelist"] == []


def with_everything(environment: str, name: str) -> Objects:
    """One of our charts with every option on."""

    def switched_on(plain: dict[str, Any]) -> dict[str, Any]:
        inner = {key: switched_on(value) for key, value in plain.items() if isinstance(value, dict)}
        return plain | inner | ({"enabled": True} if "enabled" in plain else {})

    given = switched_on(values(environment, name))
    if "prometheus" in given:
        given["prometheus"] |= {"address": "http://prometheus.monitoring:9090"}
    return render(ROOT / source(environment, name)["path"], given, "ratchet")


def group_of(document: dict[str, Any]) -> str:
    return str(document["apiVersion"]).rpartition("/")[0]


@both
def test_each_application_stays_in_its_project(environment: str) -> None:
    for name, application in applications(environment).items():
        spec = application["spec"]
        project = projects(environment)[spec["project"]]
        assert {each["repoURL"] for each in sources(application)} <= set(project["sourceRepos"]), name
        assert spec["destination"] in project["destinations"], name
        assert any("chart" in each for each in sources(application)) is (spec["project"] == "ratchet-platform"), name


@both
def test_a_sync_leaves_to_flagger_what_is_flaggers(environment: str) -> None:
    spec = applications(environment)["adapter-router"]["spec"]
    (ignored,) = spec["ignoreDifferences"]
    assert ("Deployment", ignored["name"]) in rendered(environment, "adapter-router")
    assert ignored["jsonPointers"] == ["/spec/replicas"]
    assert "RespectIgnoreDifferences=true" in spec["syncPolicy"]["syncOptions"]
    assert spec["syncPolicy"]["retry"]["refresh"] is True


@both
def test_a_candidate_that_fails_is_gone_in_minutes(environment: str) -> None:
    """By its metrics, without a vote; and everything that Prometheus is to read, it is told of."""
    objects = rendered(environment, "adapter-router")
    analysis = next(each for (kind, _), each in objects.items() if kind == "Canary")["spec"]["analysis"]
    assert {metric["name"] for metric in analysis["metrics"]} == {"errors", "latency"}
    assert int(analysis["interval"].removesuffix("s")) * analysis["threshold"] <= 600
    read = {name for app in OURS for kind, name in rendered(environment, app) if kind == "PodMonitor"}
    assert read == {"adapter-router", "model-pool", "gate", "reconciler"}


@both
def test_the_file_that_a_release_writes_is_the_one_that_argo_cd_renders(environment: str, tmp_path: Path) -> None:
    release, place = settings(environment, tmp_path).release_adapter, source(environment, "adapter-router")
    files = [(ROOT / place["path"] / file).resolve() for file in place["helm"]["valueFiles"]]
    assert files[-1] == ROOT / release.values_path
    assert (release.git_url, release.branch) == (place["repoURL"], place["targetRevision"])
    text = files[-1].read_text()
    assert adapter_in(text, release.values_path).digest == "base"
    adapter = AdapterRef(name="adapter", version="3", uri="s3://lake/adapters/x", digest="a" * 64)
    written = with_values(text, ReleaseValues(adapter), "adapter.yaml")
    layered = merge(values(environment, "adapter-router"), yaml.safe_load(written))
    deployment = next(each for each in render(ROOT / place["path"], layered, "ratchet") if each["kind"] == "Deployment")
    assert AdapterRef.of_annotations(deployment["spec"]["template"]["metadata"]["annotations"]) == adapter


@both
def test_services_find_each_other(environment: str, tmp_path: Path) -> None:
    release, router = settings(environment, tmp_path).release_adapter, values(environment, "adapter-router")
    pool, gate = rendered(environment, "model-pool"), rendered(environment, "release-services")
    assert router["pool"]["url"] == url(pool, "model-pool")
    for namespace in ("ratchet", "kubeflow"):
        assert resolved(str(release.gate_url), namespace) == (service(gate, "gate"), 8000)
    assert ("Canary", release.canary) in rendered(environment, "adapter-router")
    assert release.namespace == applications(environment)["adapter-router"]["spec"]["destination"]["namespace"]


@both
def test_flagger_reaches_the_gate_from_its_own_namespace(environment: str) -> None:
    gate = rendered(environment, "release-services")
    flagger = applications(environment)["flagger"]["spec"]["destination"]["namespace"]
    canary = rendered(environment, "adapter-router")["Canary", "adapter-router"]
    hooks = canary["spec"]["analysis"]["webhooks"]
    assert hooks
    for hook in hooks:
        assert resolved(hook["url"], flagger) == (service(gate, "gate"), 8000)
    (rule,) = gate["NetworkPolicy", "gate"]["spec"]["ingress"]
    admitted = [each["namespaceSelector"]["matchLabels"] for each in rule["from"] if "namespaceSelector" in each]
    assert {"kubernetes.io/metadata.name": flagger} in admitted
    assert {"kubernetes.io/metadata.name": "kubeflow"} in admitted


def test_the_profile_for_clusters_names_the_gates_service() -> None:
    profile = yaml.safe_load((ROOT / "pipelines" / "ratchet_pipelines" / "profiles" / "gpu.yaml").read_text())
    gate = rendered("production", "release-services")
    assert resolved(profile["release_adapter"]["gate_url"], "kubeflow") == (service(gate, "gate"), 8000)


def resolved(address: str, namespace: str) -> tuple[str, int]:
    """The Service that a pod of this namespace reaches, by the search list of its resolv.conf; and the port."""
    host, port = httpx.URL(address).host, httpx.URL(address).port
    search = (f"{namespace}.svc.cluster.local", "svc.cluster.local", "cluster.local")
    names = {f"{host}.{domain}" for domain in search} | {host}
    (found,) = names & SERVICES
    return found, port or 80


SERVICES = {f"{name}.ratchet.svc.cluster.local" for name in ("gate", "model-pool", "mlflow", "adapter-router")}


def service(objects: dict[tuple[str, str], dict[str, Any]], name: str) -> str:
    assert objects["Service", name]["spec"]["ports"][0]["port"] == 8000
    return f"{name}.ratchet.svc.cluster.local"


def url(objects: dict[tuple[str, str], dict[str, Any]], service: str) -> str:
    return f"http://{service}:{objects['Service', service]['spec']['ports'][0]['port']}"


@both
def test_the_pool_serves_what_training_makes(environment: str, tmp_path: Path) -> None:
    config, pool = settings(environment, tmp_path), values(environment, "model-pool")
    assert (config.base_model.model, config.base_model.revision) == (pool["model"]["id"], pool["model"]["revision"])
    assert config.train_adapter.lora.r <= pool["lora"]["maxRank"]


@both
def test_all_agree_on_the_lake(environment: str) -> None:
    lake = values(environment, "release-services")["lake"]
    assert values(environment, "adapter-router")["lake"] == lake
    assert pods(environment)["lake"] == lake
    assert values(environment, "model-pool")["lake"] == lake


@both
def test_every_service_account_is_made_once(environment: str) -> None:
    objects = [each for name in OURS for each in rendered(environment, name).values()]
    made = [each["metadata"]["name"] for each in objects + read(environment, "foundation.yaml") if is_account(each)]
    pods = [each["spec"]["template"]["spec"] for each in objects if each["kind"] == "Deployment"]
    steps = (ARGOCD / "workflows" / "ratchet-steps.yaml").read_text() + (
        ARGOCD / "workflows" / "ratchet-loop.yaml"
    ).read_text()
    used = {pod["serviceAccountName"] for pod in pods} | set(re.findall(r"serviceAccountName: (\S+)", steps))
    assert sorted(made) == sorted(used - {"default"})


def is_account(document: dict[str, Any]) -> bool:
    return bool(document["kind"] == "ServiceAccount")


@both
def test_our_images_are_pinned_by_digest(environment: str) -> None:
    for name in OURS:
        for each in rendered(environment, name).values():
            for container in each["spec"]["template"]["spec"]["containers"] if each["kind"] == "Deployment" else []:
                assert DIGEST.search(container["image"]) or container["name"] == "vllm", container["image"]
    assert all(DIGEST.search(image) for image in pods(environment)["images"].values())


def pods(environment: str) -> dict[str, Any]:
    """What Airflow is told about the steps' pods."""
    (found,) = read(environment, "airflow.yaml")
    told: dict[str, Any] = json.loads(found["data"]["pods.json"])
    return told


@both
def test_kustomize_pins_the_workflows_images_by_digest(environment: str) -> None:
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed; it holds kustomize")
    command = ["kubectl", "kustomize", str(ARGOCD / environment / "workflows")]
    built = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    images = re.findall(r"image: (\S+)", built)
    assert images
    assert all(DIGEST.search(image) for image in images)
    names = {path.stem for path in (ARGOCD / "workflows").glob("ratchet-*.yaml")}
    assert len(list(yaml.safe_load_all(built))) == len(names)


PHASES = [
    ({}, "Progressing"),
    ({"phase": "Initializing"}, "Progressing"),
    ({"phase": "Initialized", "canaryWeight": 0}, "Healthy"),
    ({"phase": "Waiting"}, "Suspended"),
    ({"phase": "WaitingPromotion", "canaryWeight": 50}, "Suspended"),
    ({"phase": "Promoting", "canaryWeight": 50}, "Progressing"),
    ({"phase": "Succeeded", "canaryWeight": 0}, "Healthy"),
    ({"phase": "Failed", "canaryWeight": 0, "lastAppliedSpec": "b", "lastPromotedSpec": "a"}, "Degraded"),
    ({"phase": "Failed", "canaryWeight": 0, "lastAppliedSpec": "a", "lastPromotedSpec": "a"}, "Healthy"),
    ({"phase": "Failed", "canaryWeight": 100, "lastAppliedSpec": "a", "lastPromotedSpec": "a"}, "Degraded"),
]


@pytest.mark.parametrize(("status", "health"), PHASES)
def test_argo_cd_takes_flaggers_phases_as_people_do(status: dict[str, Any], health: str) -> None:
    assert run_lua("flagger.app_Canary", {"status": status})["status"] == health


def test_an_application_is_as_healthy_as_it_says() -> None:
    assert run_lua("argoproj.io_Application", {})["status"] == "Progressing"
    assert run_lua("argoproj.io_Application", {"status": {"health": {"status": "Degraded"}}})["status"] == "Degraded"


def run_lua(kind: str, document: dict[str, Any]) -> Any:
    """A health check of ours, run by Lua itself."""
    lupa = pytest.importorskip("lupa", reason="the package lupa (Lua) is not installed")
    script = yaml.safe_load((ARGOCD / "argocd-cm.yaml").read_text())["data"][f"resource.customizations.health.{kind}"]
    lua = lupa.LuaRuntime()
    lua.globals().obj = lua.table_from(document, recursive=True)
    return lua.execute(script)
