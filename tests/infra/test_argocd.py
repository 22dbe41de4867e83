"""What Argo CD follows: valid by its schemas, permitted by its own rules, complete, and in agreement with itself."""

import fnmatch
import json
import os
import re
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

import httpx
import kubernetes_validate
import pytest
import yaml

from ratchet.adapter_ref import AdapterRef
from ratchet.config import Config, load_config
from ratchet.rehearsal.argo import merge
from ratchet.release.reconciler.gitops import ReleaseValues, adapter_in, with_values
from support import argocd_tree, chart_facts, crd_schemas, pod_security
from support.argocd_tree import ARGOCD, ENVIRONMENTS, ROOT, SEED, Objects, applications, projects, source, sources

DIGEST = re.compile(r"@sha256:[0-9a-f]{64}$")
UPSTREAM = ("airflow", "argo-workflows", "flagger")
OURS = ("model-pool", "release-services", "adapter-router")
KUBERNETES = "1.31"
CLUSTER_SCOPED = {"ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition", "Namespace", "PriorityClass"}
FACTS = chart_facts.read("argo-cd")
Plain = dict[str, Any]
both = pytest.mark.parametrize("environment", ENVIRONMENTS)


def values(environment: str, name: str) -> Plain:
    """The values of one of our charts, as Argo CD layers them."""
    return source(environment, name).values()


@cache
def rendered(environment: str, name: str) -> dict[tuple[str, str], Plain]:
    """One of our charts as Argo CD renders it."""
    return {(each["kind"], each["metadata"]["name"]): each for each in source(environment, name).objects()}


def settings(environment: str, tmp_path: Path) -> Config:
    path = tmp_path / "ratchet.yaml"
    path.write_text(values(environment, "release-services")["config"])
    return load_config(path)


def all_applications(environment: str) -> dict[str, Plain]:
    """With the root, which brings the others."""
    return {"ratchet": argocd_tree.root(environment), **applications(environment)}


# ---- what is applied, and whether it may be


def group_of(document: Plain) -> str:
    return str(document["apiVersion"]).rpartition("/")[0]


def with_everything(environment: str, name: str) -> Objects:
    """What an Application of ours applies, with every option of its values on."""

    def switched_on(plain: Plain) -> Plain:
        inner = {key: switched_on(value) for key, value in plain.items() if isinstance(value, dict)}
        return plain | inner | ({"enabled": True} if "enabled" in plain else {})

    made = []
    for place in sources(applications(environment)[name]):
        each = argocd_tree.Source(applications(environment)[name], place)
        options = {}
        if each.is_ours and (each.folder / "Chart.yaml").exists():
            options = switched_on(each.values())
            if "prometheus" in options:
                options["prometheus"] |= {"address": "http://prometheus.monitoring:9090"}
            if name == "ratchet-foundation":
                options |= {"gateway": {"className": "any"}, "weights": {"storageClassName": "any", "size": "1Gi"}}
        made += each.objects(**options)
    return made


def applied(environment: str, name: str) -> set[tuple[str, str, str | None, str | None]]:
    """(group, kind, name, namespace) of all that an Application applies; names of others' objects are not known."""
    spec = applications(environment)[name]["spec"]
    found: set[tuple[str, str, str | None, str | None]] = set()
    for each in with_everything(environment, name):
        metadata = each["metadata"]
        found.add((group_of(each), each["kind"], metadata["name"], metadata.get("namespace")))
    if name in UPSTREAM:
        for each in chart_facts.read(name)["rendered"]["kinds"]:
            group, _, kind = each.rpartition("/")
            found.add((group, kind, None, None))
    if "CreateNamespace=true" in spec["syncPolicy"].get("syncOptions", []):
        found.add(("", "Namespace", spec["destination"]["namespace"], None))
    return found


def is_permitted(project: Plain, group: str, kind: str, name: str | None, namespaced: bool) -> bool:
    """Argo CD's own rule: IsGroupKindNamePermitted of pkg/apis/application/v1alpha1/app_project_types.go.

    A kind of the cluster must be on the white list, where a name may limit it; a namespaced one, if there is a list.
    """
    prefix = "namespaceResource" if namespaced else "clusterResource"

    def listed(entries: Objects) -> bool:
        return any(
            fnmatch.fnmatchcase(group, each["group"])
            and fnmatch.fnmatchcase(kind, each["kind"])
            and (namespaced or not each.get("name") or fnmatch.fnmatchcase(name or "", each["name"]))
            for each in entries
        )

    white, black = project.get(f"{prefix}Whitelist"), project.get(f"{prefix}Blacklist") or []
    is_white = (namespaced and white is None) or listed(white or [])
    return is_white and not listed(black)


@both
def test_projects_permit_all_that_any_values_make(environment: str) -> None:
    for name, application in applications(environment).items():
        project = projects(environment)[application["spec"]["project"]]
        for group, kind, named, namespace in applied(environment, name):
            namespaced = kind not in CLUSTER_SCOPED
            assert is_permitted(project, group, kind, named, namespaced), (name, kind, named)
            place = application["spec"]["destination"] | ({"namespace": namespace} if namespace else {})
            assert place in project["destinations"] or not namespaced, (name, kind, named, namespace)


def test_a_project_refuses_the_namespace_that_create_namespace_would_add() -> None:
    """As Argo CD did with what the projects were: argoproj/argo-cd#22869."""
    project = {"clusterResourceWhitelist": [{"group": "apiextensions.k8s.io", "kind": "CustomResourceDefinition"}]}
    assert not is_permitted(project, "", "Namespace", "argo", namespaced=False)
    assert is_permitted(project, "", "ConfigMap", "any", namespaced=True)


@both
@pytest.mark.parametrize("project", ["ratchet", "ratchet-router"])
def test_our_projects_permit_nothing_that_no_values_make(environment: str, project: str) -> None:
    made = {
        (group, kind)
        for name, each in applications(environment).items()
        if each["spec"]["project"] == project
        for group, kind, _, _ in applied(environment, name)
    }
    spec = projects(environment)[project]
    assert {(each["group"], each["kind"]) for each in spec["namespaceResourceWhitelist"]} == made
    assert spec["clusterResourceWhitelist"] == []


@both
def test_namespaces_are_made_once_and_before_all_that_is_in_them(environment: str) -> None:
    made = {
        each["metadata"]["name"] for each in source(environment, "namespaces").objects() if each["kind"] == "Namespace"
    }
    for name, application in applications(environment).items():
        spec = application["spec"]
        assert spec["destination"]["namespace"] in made
        assert "CreateNamespace=true" not in spec["syncPolicy"]["syncOptions"]
        assert wave(application) > 0 or name == "namespaces"
    allowed = {
        each["name"] for each in projects(environment)["ratchet-platform"]["clusterResourceWhitelist"] if "name" in each
    }
    assert allowed == made


@both
def test_only_the_platform_makes_what_holds_for_the_whole_cluster_or_bounds_a_namespace(environment: str) -> None:
    for name, spec in projects(environment).items():
        kinds = {each["kind"] for each in spec.get("namespaceResourceWhitelist", [])}
        assert (name == "ratchet-platform") is bool(spec["clusterResourceWhitelist"])
        assert not kinds & {"ResourceQuota", "LimitRange"}
        assert (name == "ratchet-root") is ("Application" in kinds)


@both
def test_each_application_stays_in_its_project(environment: str) -> None:
    for name, application in all_applications(environment).items():
        spec = application["spec"]
        project = projects(environment)[spec["project"]]
        assert {each["repoURL"] for each in sources(application)} <= set(project["sourceRepos"]), name
        assert spec["destination"] in project["destinations"], name
        others = [each for each in sources(application) if "chart" in each]
        assert not others or spec["project"] == "ratchet-platform", name


# ---- the write-back: one file, in a repository that nothing else trusts


@both
def test_only_the_router_reads_the_repository_that_a_release_may_write(environment: str, tmp_path: Path) -> None:
    written = settings(environment, tmp_path).release_adapter.git_url
    assert written != argocd_tree.root(environment)["spec"]["source"]["repoURL"]
    trusting = [name for name, spec in projects(environment).items() if written in spec["sourceRepos"]]
    assert trusting == ["ratchet-router"]
    readers = {
        name: [each for each in sources(application) if each["repoURL"] == written]
        for name, application in all_applications(environment).items()
    }
    assert {name for name, places in readers.items() if places} == {"adapter-router"}
    (place,) = readers["adapter-router"]
    assert set(place) == {"repoURL", "targetRevision", "ref"}, "with a path Argo CD would apply what is in it"
    named = [
        each for each in sources(applications(environment)["adapter-router"])[0]["helm"]["valueFiles"] if "$" in each
    ]
    assert named == [f"${place['ref']}/{settings(environment, tmp_path).release_adapter.values_path}"]


def with_other_leaves(plain: Any) -> Any:
    """Values of the same form, each of them another one."""
    if isinstance(plain, dict):
        return {key: with_other_leaves(each) for key, each in plain.items()}
    if isinstance(plain, list):
        return []
    if isinstance(plain, bool):
        return not plain
    return plain + 1 if isinstance(plain, int) else "stolen"


RELEASED = ("adapter", "rolloutNonce", "skipAnalysis")


@both
def test_whoever_may_push_the_adapter_changes_the_adapter_and_nothing_else(environment: str) -> None:
    place = source(environment, "adapter-router")
    own = yaml.safe_load((place.folder / "values.yaml").read_text())
    hostile = with_other_leaves(own) | {"env": [{"name": "STOLEN", "value": "1"}], "podMonitor": None}
    first, *later = place.files()
    assert first == SEED
    layers = [yaml.safe_load(file.read_text()) for file in later]
    honest = {key: own[key] for key in RELEASED} | yaml.safe_load(SEED.read_text())
    assert merge(own, hostile | honest, *layers) == merge(own, honest, *layers)
    assert merge(own, honest, *layers) == values(environment, "adapter-router")


# ---- which commit touches what: Argo CD's rule of manifest-generate-paths


def refresh_paths(application: Plain, place: Plain) -> list[PurePosixPath]:
    """GetSourceRefreshPaths of util/app/path/path.go; empty: every commit."""
    said = application["metadata"]["annotations"].get("argocd.argoproj.io/manifest-generate-paths", "")
    items = [each.strip() for each in said.split(";") if each.strip()]
    return [
        PurePosixPath(os.path.normpath(item if item.startswith("/") else f"/{place.get('path', '')}/{item}"))
        for item in items
    ]


def is_rendered_anew(application: Plain, repository: str, files: list[str]) -> bool:
    """Whether a commit to a repository makes Argo CD render an Application: AppFilesHaveChanged, for each source.

    A source that is only a `ref` is compared by the paths of the source that names it
    (UpdateRevisionForPaths of reposerver/repository/repository.go).
    """
    touched = [PurePosixPath("/") / file for file in files]
    for place in sources(application):
        if place["repoURL"] == repository:
            paths = refresh_paths(application, place)
            if not paths or any(
                file.is_relative_to(path) or file.match(str(path)) for file in touched for path in paths
            ):
                return True
    return False


def rendered_anew(environment: str, repository: str, *files: str) -> set[str]:
    apps = all_applications(environment)
    return {name for name, each in apps.items() if is_rendered_anew(each, repository, list(files))}


@both
def test_a_releases_commit_renders_the_router_and_nothing_else(environment: str, tmp_path: Path) -> None:
    release = settings(environment, tmp_path).release_adapter
    assert rendered_anew(environment, str(release.git_url), release.values_path) == {"adapter-router"}


@both
def test_a_commit_of_code_renders_nothing(environment: str) -> None:
    repository = argocd_tree.root(environment)["spec"]["source"]["repoURL"]
    assert (
        rendered_anew(environment, repository, "README.md", "dags/train_adapter.py", "components/ratchet/step.py")
        == set()
    )


@both
def test_a_commit_renders_what_is_made_of_the_files_that_it_touches(environment: str) -> None:
    repository = argocd_tree.root(environment)["spec"]["source"]["repoURL"]
    other = next(each for each in ENVIRONMENTS if each != environment)
    for name, application in all_applications(environment).items():
        for place in sources(application):
            each = argocd_tree.Source(application, place)
            for file in each.files():
                if file != SEED:
                    assert name in rendered_anew(environment, repository, str(file.relative_to(ROOT)))
            if each.is_ours:
                assert name in rendered_anew(environment, repository, f"{place['path']}/{anything_in(each)}")
    assert rendered_anew(environment, repository, f"infra/argocd/{other}/environment.yaml") == set()
    assert rendered_anew(environment, repository, "infra/argocd/workflows/ratchet-steps.yaml") == {"workflows"}
    assert rendered_anew(environment, repository, "charts/model-pool/templates/service.yaml") == {"model-pool"}


def anything_in(place: argocd_tree.Source) -> str:
    return next(path.name for path in sorted(place.folder.iterdir()) if path.is_file())


# ---- the objects


@both
def test_every_object_is_valid_by_argo_cds_schema(environment: str) -> None:
    for document in [*argocd_tree.by_hand(environment), *applications(environment).values()]:
        crd_schemas.check(document, "argo-cd")


@both
@pytest.mark.parametrize("name", ["namespaces", "ratchet-foundation"])
def test_plain_objects_are_valid_kubernetes(environment: str, name: str) -> None:
    for document in with_everything(environment, name):
        if document["kind"] == "Gateway":
            crd_schemas.check(document, "gateway-api")
        else:
            kubernetes_validate.validate(document, KUBERNETES, strict=True)


@both
def test_annotations_and_options_are_words_that_argo_cd_knows(environment: str) -> None:
    objects = [*argocd_tree.by_hand(environment)]
    for name, application in all_applications(environment).items():
        options = application["spec"]["syncPolicy"].get("syncOptions", [])
        assert set(options) <= set(FACTS["application options"]), name
        objects += [application, *(with_everything(environment, name) if name != "ratchet" else [])]
    for each in objects:
        found = {
            key: value for key, value in each["metadata"].get("annotations", {}).items() if key.startswith("argocd.")
        }
        assert set(found) <= set(FACTS["annotations"]), each["metadata"]["name"]
        said = found.get("argocd.argoproj.io/sync-options", "")
        assert {word.strip() for word in said.split(",") if word} <= set(FACTS["object options"])


@both
def test_a_person_says_yes_before_what_serves_or_holds_something_is_deleted(environment: str) -> None:
    guarded = list(applications(environment).values())
    router = rendered(environment, "adapter-router")
    guarded += [router["Canary", "adapter-router"], router["Deployment", "adapter-router"]]
    guarded += [each for each in source(environment, "namespaces").objects() if each["kind"] == "Namespace"]
    guarded += [each for each in with_everything(environment, "ratchet-foundation") if "Claim" in each["kind"]]
    assert len(guarded) > len(applications(environment)) + 4
    for each in guarded:
        said = each["metadata"]["annotations"]["argocd.argoproj.io/sync-options"].split(",")
        assert {"Prune=confirm", "Delete=confirm"} <= set(said), each["metadata"]["name"]


def test_environments_differ_in_names_and_nothing_else() -> None:
    folders = [(ARGOCD / environment) for environment in ENVIRONMENTS]
    assert [path.name for path in sorted(folders[0].iterdir())] == [path.name for path in sorted(folders[1].iterdir())]
    for name in sorted(path.name for path in folders[0].iterdir() if path.is_file()):
        words = r"staging[.](?!git)|staging|production|\bmain\b"
        neutral = [re.sub(words, "", (folder / name).read_text()) for folder in folders]
        assert neutral[0].split() == neutral[1].split(), name


def wave(application: Plain) -> int:
    return int(application["metadata"]["annotations"]["argocd.argoproj.io/sync-wave"])


@both
def test_waves_start_with_namespaces_and_controllers_and_end_with_what_uses_them(environment: str) -> None:
    order = [
        {"namespaces"},
        {"flagger", "argo-workflows"},
        {"ratchet-foundation"},
        {"model-pool"},
        {"adapter-router", "release-services"},
        {"workflows"},
        {"airflow"},
    ]
    found = applications(environment)
    assert [{name for name in found if wave(found[name]) == number} for number in range(len(order))] == order
    assert len(found) == sum(map(len, order))


@both
def test_what_is_not_wanted_is_left_out(environment: str) -> None:
    root = argocd_tree.Source(argocd_tree.root(environment), sources(argocd_tree.root(environment))[0])
    made = root.objects(airflow={"enabled": False}, argoWorkflows={"enabled": False})
    left_out = set(applications(environment)) - {each["metadata"]["name"] for each in made}
    assert left_out == {"airflow", "argo-workflows", "workflows"}


@both
def test_every_path_is_there(environment: str) -> None:
    for application in all_applications(environment).values():
        for place in sources(application):
            each = argocd_tree.Source(application, place)
            assert not each.is_ours or each.folder.is_dir()
            assert all(file.is_file() for file in each.files()), each.files()
            if "directory" in place:
                assert (each.folder / place["directory"]["include"]).is_file()


@both
def test_the_root_follows_the_same_branch_as_its_children(environment: str) -> None:
    root = argocd_tree.root(environment)["spec"]["source"]
    for place in [each for application in applications(environment).values() for each in sources(application)]:
        if "path" in place:
            assert (place["repoURL"], place["targetRevision"]) == (root["repoURL"], root["targetRevision"])


@both
def test_pod_security_restricted_admits_every_pod_of_ours(environment: str) -> None:
    templates = [
        each["spec"]["template"]
        for name in OURS
        for _, each in rendered(environment, name).items()
        if "template" in each.get("spec", {})
    ]
    assert len(templates) > len(OURS)
    for template in templates:
        assert pod_security.violations(template["spec"]) == []
    steps = yaml.safe_load((ARGOCD / "workflows" / "ratchet-steps.yaml").read_text())["spec"]["templates"]
    with_containers = [each for each in steps if "container" in each]
    assert with_containers
    for step in with_containers:
        container = {"name": step["name"], **step["container"]}
        spec = {"securityContext": step["securityContext"], "containers": [container], "volumes": step.get("volumes")}
        assert pod_security.violations(spec) == [], step["name"]
    executor = argocd_tree.upstream("argo-workflows", environment).values["executor"]["securityContext"]
    beside = {
        "securityContext": with_containers[0]["securityContext"],
        "containers": [{"name": "wait", "securityContext": executor}],
    }
    assert pod_security.violations(beside) == []


def test_what_restricted_refuses_is_found() -> None:
    bare = {
        "containers": [{"name": "any"}],
        "volumes": [{"name": "host", "hostPath": {"path": "/"}}],
        "hostNetwork": True,
    }
    assert len(pod_security.violations(bare)) == 6


UNITS = {"Mi": 2**20, "Gi": 2**30}


def amount(quantity: object) -> float:
    """CPUs or bytes of a Kubernetes quantity."""
    text = str(quantity)
    for unit, factor in UNITS.items():
        if text.endswith(unit):
            return float(text.removesuffix(unit)) * factor
    return float(text.removesuffix("m")) / 1000 if text.endswith("m") else float(text)


@both
@pytest.mark.parametrize(
    ("resource", "bound"),
    [("cpu", "requests.cpu"), ("memory", "requests.memory"), ("nvidia.com/gpu", "requests.nvidia.com/gpu")],
)
def test_the_quota_holds_everything_at_its_most(environment: str, resource: str, bound: str) -> None:
    """The pool with one pod more while it rolls, both arms' routers at their most, and one pod of every step."""
    (quota,) = [
        each["spec"]["hard"]
        for each in source(environment, "namespaces").objects()
        if each["kind"] == "ResourceQuota" and each["metadata"]["namespace"] == "ratchet"
    ]
    routers = 2 * values(environment, "adapter-router")["autoscaling"]["maxReplicas"]
    most = {"adapter-router": routers, "model-pool": values(environment, "model-pool")["replicas"] + 1}
    wanted = 0.0
    for name in (*OURS, "ratchet-foundation"):
        for (kind, made), each in rendered(environment, name).items():
            if kind == "Deployment":
                containers = each["spec"]["template"]["spec"]["containers"]
                wanted += most.get(made, 1) * sum(map(lambda one: asks(one, resource), containers))
    steps = yaml.safe_load((ARGOCD / "workflows" / "ratchet-steps.yaml").read_text())["spec"]["templates"]
    wanted += sum(asks(each["container"], resource) for each in steps if "container" in each)
    assert 0 < wanted <= amount(quota[bound])


def asks(container: Plain, resource: str) -> float:
    resources = container.get("resources", {})
    return amount(resources.get("requests", {}).get(resource, resources.get("limits", {}).get(resource, 0)))


@both
def test_nobody_reaches_a_pod_that_no_policy_names(environment: str) -> None:
    policies = [each for each in source(environment, "namespaces").objects() if each["kind"] == "NetworkPolicy"]
    denied = {each["metadata"]["namespace"] for each in policies if each["spec"].get("ingress", []) == []}
    assert denied == {spec["spec"]["destination"]["namespace"] for spec in applications(environment).values()}
    listening = {
        made: each["spec"]["template"]["metadata"]["labels"]
        for name in OURS
        for (kind, made), each in rendered(environment, name).items()
        if kind == "Deployment" and any("ports" in one for one in each["spec"]["template"]["spec"]["containers"])
    }
    named = [
        each["spec"]["podSelector"]
        for name in OURS
        for (kind, _), each in rendered(environment, name).items()
        if kind == "NetworkPolicy"
    ]
    for made, labels in listening.items():
        assert any(selects(selector, labels) for selector in named), f"{made} listens, and nobody may ask it"


def selects(selector: Plain, labels: Plain) -> bool:
    matched = selector.get("matchLabels", {}).items() <= labels.items()
    return matched and all(
        each["operator"] == "In" and labels.get(each["key"]) in each["values"]
        for each in selector.get("matchExpressions", [])
    )


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
    (read,) = [each for each in sources(place.application) if "ref" in each]
    assert (release.git_url, release.branch) == (read["repoURL"], read["targetRevision"])
    assert place.place["helm"]["valueFiles"][0] == f"${read['ref']}/{release.values_path}"
    text = SEED.read_text()
    assert adapter_in(text, release.values_path).digest == "base"
    adapter = AdapterRef(name="adapter", version="3", uri="s3://lake/adapters/x", digest="a" * 64)
    written = yaml.safe_load(with_values(text, ReleaseValues(adapter), "adapter.yaml"))
    deployment = next(each for each in place.objects(**written) if each["kind"] == "Deployment")
    assert AdapterRef.of_annotations(deployment["spec"]["template"]["metadata"]["annotations"]) == adapter


@both
def test_the_application_that_a_release_refreshes_is_the_one_that_its_token_may_get(
    environment: str, tmp_path: Path
) -> None:
    release = settings(environment, tmp_path).release_adapter
    assert release.argocd_url is not None
    namespace, _, name = release.argocd_application.rpartition("/")
    application = applications(environment)[name]
    project = application["spec"]["project"]
    assert application["metadata"]["namespace"] == (namespace or "argocd")
    (role,) = projects(environment)[project]["roles"]
    (policy,) = role["policies"]
    words = [each.strip() for each in policy.split(",")]
    assert words == [
        "p",
        f"proj:{project}:{role['name']}",
        "applications",
        FACTS["refresh"]["action"],
        f"{project}/{name}",
        "allow",
    ]
    assert not [spec for other, spec in projects(environment).items() if other != project and spec.get("roles")]


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
def test_the_registry_is_where_every_step_looks_for_it(environment: str, tmp_path: Path) -> None:
    """Under a name that MLflow takes: it refuses a request for another host."""
    address = httpx.URL(str(settings(environment, tmp_path).registry.tracking_uri))
    objects = {(each["kind"], each["metadata"]["name"]): each for each in foundation(environment)}
    service, deployment = objects["Service", "mlflow"], objects["Deployment", "mlflow"]["spec"]["template"]
    assert address.host == f"{service['metadata']['name']}.{service['metadata']['namespace']}.svc"
    assert address.port == service["spec"]["ports"][0]["port"]
    (container,) = deployment["spec"]["containers"]
    (allowed,) = [
        each.partition("=")[2].split(",") for each in container["args"] if each.startswith("--allowed-hosts=")
    ]
    assert any(fnmatch.fnmatchcase(f"{address.host}:{address.port}", each) for each in allowed)
    assert DIGEST.search(container["image"])
    policies = [each for each in source(environment, "namespaces").objects() if each["kind"] == "NetworkPolicy"]
    (policy,) = [each["spec"] for each in policies if each["metadata"]["name"] == "mlflow"]
    assert selects(policy["podSelector"], deployment["metadata"]["labels"])


def foundation(environment: str) -> Objects:
    return source(environment, "ratchet-foundation").objects()


@both
def test_the_pool_serves_what_training_makes(environment: str, tmp_path: Path) -> None:
    config, pool = settings(environment, tmp_path), values(environment, "model-pool")
    assert re.fullmatch(r"[0-9a-f]{40}", config.base_model.revision), "a branch moves"
    assert (config.base_model.model, config.base_model.revision) == (pool["model"]["id"], pool["model"]["revision"])
    assert config.train_adapter.lora.r <= pool["lora"]["maxRank"]


@both
def test_an_environment_says_what_its_users_agreed_to(environment: str) -> None:
    """By itself, since what the chart has means that nothing is ever learnt."""
    assert "consentTraining" in yaml.safe_load((ARGOCD / environment / "adapter-router.yaml").read_text())


@both
def test_a_release_waits_longer_than_the_gate_takes_to_be_undecided(environment: str, tmp_path: Path) -> None:
    config, router = settings(environment, tmp_path), values(environment, "adapter-router")
    poll_of_argo_cd_s = 180
    before_traffic_s = poll_of_argo_cd_s + router["progressDeadlineSeconds"]
    assert config.release_adapter.timeout_s > config.gate.max_minutes * 60 + before_traffic_s


@both
def test_all_agree_on_the_lake(environment: str) -> None:
    lake = values(environment, "release-services")["lake"]
    assert values(environment, "adapter-router")["lake"] == lake
    assert pods(environment)["lake"] == lake
    assert values(environment, "model-pool")["lake"] == lake


@both
def test_every_service_account_is_made_once(environment: str) -> None:
    objects = [each for name in OURS for each in rendered(environment, name).values()]
    objects += foundation(environment)
    made = [each["metadata"]["name"] for each in objects if is_account(each)]
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


def pods(environment: str) -> Plain:
    """What Airflow is told about the steps' pods."""
    config_map = argocd_tree.upstream("airflow", environment).values["extraConfigMaps"]["ratchet-pods"]
    told: Plain = json.loads(yaml.safe_load(config_map["data"])["pods.json"])
    return told


@both
def test_kustomize_pins_the_workflows_images_by_digest(environment: str) -> None:
    built = source(environment, "workflows").objects()
    images = re.findall(r"image: (\S+)", yaml.safe_dump_all(built))
    assert images
    assert all(DIGEST.search(image) for image in images)
    names = {path.stem for path in (ARGOCD / "workflows").glob("ratchet-*.yaml")}
    assert len(built) == len(names)


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
