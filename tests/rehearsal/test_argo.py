"""Argo CD's model: the Deployment's wave first, the Canary's once that is healthy, and one sync at a time."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ratchet.rehearsal.argo import Argo, in_waves, render
from ratchet.rehearsal.cluster import Cluster
from ratchet.rehearsal.flagger import Readiness
from ratchet.rehearsal.workloads import kubelet_status

CHART = Path(__file__).resolve().parents[2] / "charts" / "adapter-router"
VALUES, NAME = "values.yaml", "adapter-router"


def git(*arguments: str, cwd: Path) -> None:
    who = ("-c", "user.name=Test", "-c", "user.email=test@example.com")
    subprocess.run(["git", *who, *arguments], cwd=cwd, check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    git("init", "--quiet", "--initial-branch=main", "repository", cwd=tmp_path)
    return tmp_path / "repository"


@pytest.fixture
def argo(tmp_path: Path, repository: Path) -> Iterator[Argo]:
    yield Argo(Cluster("ratchet"), str(repository), "main", VALUES, CHART, tmp_path / "clone.git")


def push(repository: Path, **values: Any) -> None:
    (repository / VALUES).write_text(yaml.safe_dump(values))
    git("add", "-A", cwd=repository)
    git("commit", "--quiet", "--allow-empty", "-m", "Change", cwd=repository)


def pods_are(argo: Argo, state: Readiness) -> None:
    deployment = argo.cluster.get("Deployment", NAME)
    assert deployment
    status = kubelet_status(deployment, state)
    argo.cluster.update("Deployment", NAME, lambda stored: stored.update(status=status))


def seen(argo: Argo) -> tuple[str, Any]:
    deployment, canary = argo.cluster.get("Deployment", NAME), argo.cluster.get("Canary", NAME)
    assert deployment
    nonce = deployment["spec"]["template"]["metadata"]["annotations"].get("ratchet.dev/rollout-nonce", "")
    return nonce, canary and canary["spec"]["skipAnalysis"]


def test_the_deployment_comes_before_the_canary_and_has_to_be_healthy(argo: Argo, repository: Path) -> None:
    push(repository, rolloutNonce="1")
    argo.sync()
    assert seen(argo) == ("1", None)
    pods_are(argo, Readiness.READY)
    argo.sync()
    assert seen(argo) == ("1", False)
    push(repository, rolloutNonce="2", skipAnalysis=True)
    argo.sync()
    assert seen(argo) == ("2", False)  # between the two, Flagger may tick
    push(repository, rolloutNonce="3")
    argo.sync()
    assert seen(argo) == ("2", False)  # a sync under way is completed first
    pods_are(argo, Readiness.READY)
    argo.sync()
    assert seen(argo) == ("2", True)
    argo.sync()
    assert seen(argo) == ("3", True)


def test_a_deployment_past_its_deadline_ends_the_sync_and_the_newest_commit_is_tried(
    argo: Argo, repository: Path
) -> None:
    push(repository, rolloutNonce="1")
    argo.sync()
    pods_are(argo, Readiness.STUCK)
    push(repository, rolloutNonce="2")
    argo.sync()
    assert seen(argo) == ("1", None)
    argo.sync()
    assert seen(argo) == ("2", None)
    assert any("past its deadline" in event["text"] for event in argo.cluster.events())


def test_waves_are_in_argo_cds_order() -> None:
    kinds = [[each["kind"] for each in wave] for wave in in_waves(render(CHART, {}, "ratchet"))]
    assert (kinds[0][0], kinds[-1]) == ("Deployment", ["Canary"])
