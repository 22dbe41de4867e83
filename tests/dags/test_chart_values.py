"""What the Airflow chart is told, held against Airflow itself: its options, its commands, its Kubernetes provider."""

import re
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("airflow.sdk", reason="runs in Airflow's environment: .venv-airflow/bin/pytest tests/dags")

from support import pod_security

ROOT = Path(__file__).resolve().parents[2]
VALUES = yaml.safe_load((ROOT / "infra" / "airflow" / "values.yaml").read_text())
FACTS = yaml.safe_load((ROOT / "tests" / "infra" / "facts" / "airflow.yaml").read_text())
VARIABLE = re.compile(r"AIRFLOW__([A-Z_]+?)__([A-Z_]+)")
ELSEWHERE = {"fab"}  # sections of providers that are in the image and not here


def environment() -> dict[str, str]:
    return {each["name"]: each["value"] for each in VALUES["env"]}


def test_every_option_is_one_of_airflows() -> None:
    from airflow.configuration import conf

    named = [(section, option) for section, options in VALUES["config"].items() for option in options]
    named += [tuple(part.lower() for part in found.groups()) for key in environment() if (found := VARIABLE.match(key))]
    assert len(named) > 5
    for section, option in named:
        if section not in ELSEWHERE:
            assert option in conf.configuration_description[section]["options"], f"[{section}] {option}"


def commands() -> list[list[str]]:
    """Airflow's commands among those that the chart runs, probes included."""
    found = []
    for pod in FACTS["rendered"]["pods"].values():
        for container in pod["containers"].values():
            for command in container["commands"].values():
                words = " ".join(command).replace("\\\n", " ").split()
                if "airflow" in words:
                    found.append(words[words.index("airflow") + 1 :])
    return found


def test_every_command_of_the_chart_is_one_of_airflows() -> None:
    from airflow.cli.cli_parser import get_parser

    parser = get_parser()
    assert len(commands()) >= 8
    for words in commands():
        parser.parse_args(words)


def test_a_command_that_airflow_does_not_have_is_found() -> None:
    """As what the chart makes an administrator with, where the image lacks Flask-AppBuilder."""
    from airflow.cli.cli_parser import get_parser

    with pytest.raises(SystemExit):
        get_parser().parse_args(["users", "create"])


def test_a_steps_sidecar_is_ours_and_pod_security_admits_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.providers.cncf.kubernetes.hooks.kubernetes import KubernetesHook

    key = "AIRFLOW_CONN_KUBERNETES_DEFAULT"
    monkeypatch.setenv(key, environment()[key])
    hook = KubernetesHook(conn_id="kubernetes_default")
    context: dict[str, Any] = hook.get_xcom_sidecar_container_security_context()
    assert context["allowPrivilegeEscalation"] is False
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert context["runAsNonRoot"] is True
    assert re.search(r"@sha256:[0-9a-f]{64}$", str(hook.get_xcom_sidecar_container_image()))
    assert set(hook.get_xcom_sidecar_container_resources()["requests"]) == {"cpu", "memory"}


def test_pod_security_restricted_admits_the_pod_of_every_step(monkeypatch: pytest.MonkeyPatch, pods_file: Path) -> None:
    """With the sidecar that the connection describes: the namespace `ratchet` enforces it."""
    from airflow.sdk import DAG
    from kubernetes.client import ApiClient

    from _common.settings import read_settings
    from _common.tasks import step

    key = "AIRFLOW_CONN_KUBERNETES_DEFAULT"
    monkeypatch.setenv(key, environment()[key])
    settings = read_settings({"RATCHET_EXECUTION": "kubernetes", "RATCHET_PODS": str(pods_file)})
    with DAG("d", schedule=None, start_date=datetime(2026, 1, 1)):
        built = step("build_datasets", settings)
        tasks = [built, step("train_adapter", settings, build_datasets=built)]
    for task in tasks:
        spec = ApiClient().sanitize_for_serialization(task.build_pod_request_obj(dry_run=True))["spec"]
        assert len(spec["containers"]) == 2
        assert pod_security.violations(spec) == [], task.task_id
