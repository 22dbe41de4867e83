"""What the environment may say, and what is said of a mistake in it."""

import json
import re
from dataclasses import fields
from pathlib import Path

import pytest

pytest.importorskip("airflow.sdk", reason="runs in Airflow's environment: .venv-airflow/bin/pytest tests/dags")

from _common.settings import Pods, read_settings

DIGEST = f"@sha256:{'1' * 64}"
PODS = {"images": {"cpu": "x" + DIGEST, "cuda": "x" + DIGEST}, "lake": "l"}


def test_on_a_laptop_nothing_needs_to_be_said() -> None:
    settings = read_settings({})
    assert settings.pods is None
    assert not settings.needs_approval
    assert settings.command.endswith(".venv/bin/ratchet")


def test_in_production_a_person_approves_unless_told_otherwise(pods_file: Path) -> None:
    production = {"RATCHET_EXECUTION": "kubernetes", "RATCHET_PODS": str(pods_file)}
    assert read_settings(production).needs_approval
    assert not read_settings({**production, "RATCHET_APPROVAL": "off"}).needs_approval


@pytest.mark.parametrize(
    ("pods", "words"),
    [
        (
            {"images": {"cpu": "ratchet:latest", "cuda": "x" + DIGEST}, "lake": "l"},
            "images.cpu = ratchet:latest has no",
        ),
        ({"images": {"cpu": "x" + DIGEST}, "lake": "l"}, "lacks ['cuda']"),
        ({"images": {}}, "lacks ['lake']"),
        ({"images": {}, "lake": "l", "imagse": {}}, "no such keys: ['imagse']"),
        ({**PODS, "labels": {"cost-centre": 42}}, "labels.cost-centre: Input should be a valid string"),
        ({**PODS, "image_pull_secrets": "registry"}, "image_pull_secrets: "),
        ({**PODS, "schedule_timeout_s": "an hour"}, "schedule_timeout_s: "),
    ],
)
def test_a_mistake_in_the_pods_file_is_named(tmp_path: Path, pods: dict[str, object], words: str) -> None:
    path = tmp_path / "pods.json"
    path.write_text(json.dumps(pods))
    with pytest.raises(ValueError) as caught:
        read_settings({"RATCHET_EXECUTION": "kubernetes", "RATCHET_PODS": str(path)})
    assert words in str(caught.value)


def test_every_key_of_a_pod_is_explained() -> None:
    explained = set(re.findall(r"`([a-z_]+)`", str(Pods.__doc__)))
    assert {each.name for each in fields(Pods)} <= explained


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"RATCHET_EXECUTION": "k8s"}, "write local or kubernetes"),
        ({"RATCHET_EXECUTION": "kubernetes"}, "needs RATCHET_PODS"),
        ({"RATCHET_EXECUTION": "kubernetes", "RATCHET_PODS": "absent.json"}, "cannot be read"),
        ({"RATCHET_APPROVAL": "yes"}, "write on or off"),
    ],
)
def test_a_mistake_in_the_environment_is_named(environment: dict[str, str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        read_settings(environment)
