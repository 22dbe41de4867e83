"""Our values for other people's charts, held against what those charts read and run: `facts/`, recorded from them."""

import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from support import argocd_tree, chart_facts
from support.argocd_tree import ENVIRONMENTS, ROOT

CHARTS = ("airflow", "argo-workflows", "flagger")
JSON_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
    "null": (type(None),),
}
Plain = dict[str, Any]
both = pytest.mark.parametrize("environment", ENVIRONMENTS)
every = pytest.mark.parametrize("chart", CHARTS)


def strangers(ours: Any, known: Any, place: str = "") -> list[str]:
    """Places of our values that the chart does not read, or reads as another type."""
    if known == chart_facts.FREE:
        return [] if isinstance(ours, dict | list) else [f"{place}: {ours!r} is no map or list"]
    if isinstance(known, dict):
        if not isinstance(ours, dict):
            return [f"{place}: {ours!r} is no map"]
        unknown = [f"{place}.{key}: the chart has no such key" for key in ours if key not in known]
        return unknown + [
            each for key in ours if key in known for each in strangers(ours[key], known[key], f"{place}.{key}")
        ]
    return [] if fits(ours, known) else [f"{place}: {ours!r}, where the chart has {known}"]


def fits(value: Any, known: str | list[Any]) -> bool:
    """Whether a value is one of an enumeration, or of one of the types `a|b`. A default of null says nothing."""
    if isinstance(known, list):
        return value in known
    types = known.split("|")
    if "any" in types:
        return True
    expected = tuple(each for name in types for each in JSON_TYPES[name])
    return isinstance(value, expected) and (not isinstance(value, bool) or bool in expected)


def test_a_key_that_is_not_there_and_a_value_of_another_type_are_found() -> None:
    known = {"a": {"b": "integer|null"}, "c": ["x", "y"], "d": chart_facts.FREE}
    assert strangers({"a": {"b": None}, "c": "y", "d": {"anything": 1}}, known) == []
    assert len(strangers({"a": {"b": True, "bb": 1}, "c": "z", "d": 1, "e": 1}, known)) == 5


FREE_IN_CHART = {
    # maps that the chart's values show with examples, and that it hands on as they are
    "airflow": ("config",),
    "flagger": ("securityContext.context",),
    "argo-workflows": ("controller.securityContext", "server.securityContext"),
}


def keys_of(chart: str) -> Plain:
    """The chart's keys, with maps that it only hands on made free."""
    keys: Plain = chart_facts.read(chart)["keys"]
    for path in FREE_IN_CHART[chart]:
        *parents, last = path.split(".")
        inner = keys
        for each in parents:
            inner = inner[each]
        inner[last] = chart_facts.FREE
    return keys


@both
@every
def test_our_values_name_only_what_the_chart_reads(chart: str, environment: str) -> None:
    assert strangers(argocd_tree.upstream(chart, environment).values, keys_of(chart)) == []


@both
@every
def test_the_record_is_of_our_values_and_of_the_version_that_is_installed(chart: str, environment: str) -> None:
    facts, given = chart_facts.read(chart), argocd_tree.upstream(chart, environment)
    assert chart_facts.shape(given.values) == facts["values"], f"keys changed; record again: {chart_facts.__doc__}"
    assert (facts["release"], facts["namespace"]) == (given.release, given.namespace)
    assert given.version == facts["version"] or given.version in facts["source"]["read"]
    assert facts["source"]["repository"].startswith("https://github.com/")


def pods(chart: str) -> dict[str, Plain]:
    found: dict[str, Plain] = chart_facts.read(chart)["rendered"]["pods"]
    return found


@every
def test_pod_security_restricted_admits_every_pod_of_the_charts(chart: str) -> None:
    enforced = {
        each["metadata"]["name"]: each["metadata"]["labels"]["pod-security.kubernetes.io/enforce"]
        for each in argocd_tree.load(argocd_tree.ARGOCD / "namespaces" / "namespaces.yaml")
    }
    assert enforced[chart_facts.read(chart)["namespace"]] == "restricted"
    assert pods(chart)
    for name, pod in pods(chart).items():
        assert pod["refused by restricted"] == [], name


@every
def test_the_same_values_render_the_same_again(chart: str) -> None:
    """Argo CD renders at every commit: what differs each time, as a key made at random, restarts pods each time."""
    assert chart_facts.read(chart)["rendered"]["same again"] is True


@both
def test_airflows_keys_are_secrets_by_name(environment: str) -> None:
    values = argocd_tree.upstream("airflow", environment).values
    named = {values[key] for key in ("fernetKeySecretName", "jwtSecretName", "apiSecretKeySecretName")}
    made = set(chart_facts.read("airflow")["rendered"]["secrets made"])
    assert len(named) == 3
    assert made == {"airflow-broker-url"}, "of Celery, which we do not run"


def test_nobody_is_made_administrator_and_nothing_waits_for_a_disk() -> None:
    assert [name for name in pods("airflow") if "user" in name] == []
    assert {name.partition("/")[0] for name in pods("airflow")} == {"Deployment", "Job"}, "a StatefulSet has a claim"
    assert [claim for pod in pods("airflow").values() for claim in pod["claims"]] == []


def image() -> Plain:
    """What Airflow's official image, which ours is built from, is known to have."""
    facts: Plain = json.loads(Path(__file__).with_name("airflow_image.json").read_text())
    return facts


def test_the_image_has_every_command_that_the_chart_runs_in_it() -> None:
    has = {*image()["programs"], *image()["on_path"]}
    repository = argocd_tree.upstream("airflow").values["defaultAirflowRepository"]
    ours = [each for pod in pods("airflow").values() for each in pod["containers"].values()]
    assert {each["image"] for each in ours} == {repository}
    for container in ours:
        for command in container["commands"].values():
            assert programs(command) <= has, command


def programs(command: list[str]) -> set[str]:
    """What a command runs: its first word, and, where that is a shell, the file or the words of its script."""
    first, *rest = command
    if first not in ("bash", "sh"):
        return {first}
    if rest[0] != "-c":
        return {first, rest[0]}
    words = rest[1].replace("\\\n", " ").split()
    named = [word for word in words if word == "airflow" or word.startswith("/")]
    return {first, *named}


def test_programs_are_found_within_scripts() -> None:
    assert programs(["bash", "/clean-logs"]) == {"bash", "/clean-logs"}
    assert programs(["sh", "-c", "A=1 exec /entrypoint \\\nairflow jobs check"]) == {"sh", "/entrypoint", "airflow"}


@both
def test_every_class_that_airflow_is_told_to_load_is_in_its_image(environment: str) -> None:
    values = argocd_tree.upstream("airflow", environment).values
    classes = [values["config"]["core"]["auth_manager"]]
    classes += [each["classpath"] for each in values["dagProcessor"]["dagBundleConfigList"]]
    provided = {re.sub(r"^airflow[.]providers[.](\w+)[.].*", r"\1", each) for each in classes}
    if values["config"]["logging"]["remote_base_log_folder"].startswith("s3://"):
        provided.add("amazon")
    assert provided <= set(image()["extras"]["names"])
    assert provided == {"fab", "git", "amazon"}


@both
def test_dags_come_by_commit_from_the_repository_that_argo_cd_follows(environment: str) -> None:
    values = argocd_tree.upstream("airflow", environment).values
    (bundle,) = values["dagProcessor"]["dagBundleConfigList"]
    root = argocd_tree.root(environment)["spec"]["source"]
    assert bundle["kwargs"]["tracking_ref"] == root["targetRevision"]
    assert (ROOT / bundle["kwargs"]["subdir"]).is_dir()
    (secret,) = values["secret"]
    assert secret["envName"] == f"AIRFLOW_CONN_{bundle['kwargs']['git_conn_id'].upper()}"


@pytest.mark.parametrize("page", ["argo.md", "airflow.md"])
def test_every_secret_that_airflow_needs_is_made_on_the_page(page: str) -> None:
    text = (ROOT / "docs" / page).read_text()
    made = {
        f"{name}/{key}"
        for name, rest in re.findall(r"kubectl -n airflow create secret generic (\S+)((?:.*\\\n)*.*)", text)
        for key in re.findall(r"--from-(?:literal|file)=([\w-]+)=", rest)
    }
    assert {each for pod in pods("airflow").values() for each in pod["secrets"]} <= made


def test_who_starts_and_watches_pods_is_an_account_that_the_chart_makes() -> None:
    (binding,) = [
        each for each in argocd_tree.load(ROOT / "infra" / "airflow" / "cluster.yaml") if each["kind"] == "RoleBinding"
    ]
    accounts = {pod["service account"] for pod in pods("airflow").values()}
    namespace = chart_facts.read("airflow")["namespace"]
    assert {each["namespace"] for each in binding["subjects"]} == {namespace}
    assert {each["name"] for each in binding["subjects"]} <= accounts


@both
def test_roles_are_for_accounts_that_the_charts_make(environment: str) -> None:
    """Whose names infra/terraform trusts: airflow/airflow-scheduler and the others, argo/argo-workflows-server."""
    values = argocd_tree.upstream("airflow", environment).values
    accounts = {"scheduler": "airflow-scheduler", "triggerer": "airflow-triggerer", "apiServer": "airflow-api-server"}
    for component, account in accounts.items():
        assert account in {pod["service account"] for pod in pods("airflow").values()}
        assert values[component]["serviceAccount"]["annotations"]
    assert "argo-workflows-server" in {pod["service account"] for pod in pods("argo-workflows").values()}
    server = argocd_tree.upstream("argo-workflows", environment).values["server"]
    prefix = environment_file(environment)["prefix"]
    (role,) = server["serviceAccount"]["annotations"].values()
    assert role.endswith(f"role/{prefix}-argo-server")


def environment_file(environment: str) -> Plain:
    values: Plain = yaml.safe_load((argocd_tree.ARGOCD / environment / "environment.yaml").read_text())
    return values


@both
def test_prometheus_is_where_its_chart_puts_it_and_selects_what_we_give_it(environment: str) -> None:
    facts = chart_facts.read("kube-prometheus-stack")["rendered"]
    address = httpx.URL(argocd_tree.source(environment, "adapter-router").values()["prometheus"]["address"])
    assert address.port in facts["services"][address.host.removesuffix(".svc")]
    selected = {
        "PodMonitor": facts["selectors"]["podMonitorSelector"],
        "PrometheusRule": facts["selectors"]["ruleSelector"],
    }
    found = []
    for name in ("model-pool", "release-services", "adapter-router"):
        for each in argocd_tree.source(environment, name).objects():
            if each["kind"] in selected:
                found.append(each["kind"])
                assert selected[each["kind"]].items() <= each["metadata"]["labels"].items(), each["metadata"]["name"]
    assert set(found) == set(selected)
    flagger = argocd_tree.upstream("flagger", environment).values["podMonitor"]["additionalLabels"]
    assert selected["PodMonitor"].items() <= flagger.items()


def test_the_release_and_namespace_of_prometheus_are_those_that_the_page_installs() -> None:
    text = (ROOT / "docs" / "argo.md").read_text()
    stack = argocd_tree.PROMETHEUS
    command = re.search(r"helm upgrade --install (\S+) \S*/?kube-prometheus-stack(?:.*\\\n)*.*", text)
    assert command is not None
    assert command[1] == stack.release
    assert f"--namespace {stack.namespace}" in command[0]
    assert f"--version {stack.version}" in command[0]


def test_records_say_where_they_were_read() -> None:
    for path in sorted(chart_facts.FACTS.glob("*.yaml")):
        source = yaml.safe_load(path.read_text())["source"]
        assert {"repository", "read"} <= set(source), path.name


def test_no_record_is_left_without_a_reader() -> None:
    read = {*CHARTS, "kube-prometheus-stack", "argo-cd"}
    assert {path.stem for path in chart_facts.FACTS.glob("*.yaml")} == read
