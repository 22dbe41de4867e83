"""Webhooks over HTTP, and what the scheduler's moves leave in the cluster."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ratchet.http_service import free_ports
from ratchet.rehearsal import workloads
from ratchet.rehearsal.argo import in_waves, merge, render
from ratchet.rehearsal.canary_spec import Hook
from ratchet.rehearsal.canary_status import Status
from ratchet.rehearsal.cluster import Cluster
from ratchet.rehearsal.flagger import ClusterError, Readiness
from ratchet.rehearsal.flagger_io import ClusterWorld
from support.rehearsal_fakes import FakeGate, served

CHART = Path(__file__).resolve().parents[2] / "charts" / "adapter-router"
NAME, PRIMARY = "adapter-router", "adapter-router-primary"
NO_SECRET = {"credentials": {"secretName": ""}}


@pytest.fixture
def gate() -> FakeGate:
    return FakeGate()


@pytest.fixture
def gate_url(gate: FakeGate) -> Iterator[str]:
    with served(gate) as url:
        yield url


@pytest.fixture
def world(gate_url: str) -> Iterator[ClusterWorld]:
    made = ClusterWorld(cluster_of({"gate": {"url": gate_url}}), NAME)
    yield made
    made.client.close()


def cluster_of(values: dict[str, Any], state: Path | None = None) -> Cluster:
    cluster = Cluster("ratchet", state)
    sync(cluster, values)
    return cluster


def sync(cluster: Cluster, values: dict[str, Any]) -> None:
    for wave in in_waves(render(CHART, merge(NO_SECRET, values), "ratchet")):
        for manifest in wave:
            cluster.apply(manifest)


@pytest.mark.parametrize(
    ("status", "passes"),
    [(200, True), (201, True), (202, True), (204, False), (403, False), (500, False)],
)
def test_only_200_to_202_pass(world: ClusterWorld, gate: FakeGate, gate_url: str, status: int, passes: bool) -> None:
    gate.statuses["pre-rollout"] = [status]
    hook = Hook("gate", "pre-rollout", f"{gate_url}/hooks/pre-rollout")
    assert world.call_hook(hook, "Progressing", "abc") is passes


@pytest.mark.parametrize(("first", "calls"), [(503, 2), (429, 2), (403, 1)])
def test_retries_cover_overload_and_not_refusal(
    world: ClusterWorld, gate: FakeGate, gate_url: str, first: int, calls: int
) -> None:
    gate.statuses["pre-rollout"] = [first, 200]
    hook = Hook("gate", "pre-rollout", f"{gate_url}/hooks/pre-rollout", retries=1)
    assert world.call_hook(hook, "Progressing", "abc") is (calls == 2)
    assert len(gate.calls) == calls


def test_payload_is_flaggers(world: ClusterWorld, gate: FakeGate, gate_url: str) -> None:
    hook = Hook("gate", "rollback", f"{gate_url}/hooks/rollback", metadata=(("why", "test"),))
    world.call_hook(hook, "WaitingPromotion", "abc")
    payload = {"name": NAME, "namespace": "ratchet", "phase": "WaitingPromotion", "checksum": "abc"}
    assert gate.calls == [("rollback", payload | {"metadata": {"why": "test"}})]


def test_a_gate_that_is_away_refuses(world: ClusterWorld) -> None:
    hook = Hook("gate", "rollback", f"http://127.0.0.1:{free_ports(1)[0]}/hooks/rollback")
    assert world.call_hook(hook, "Progressing", "abc") is False


def test_events_carry_message_type_and_time(world: ClusterWorld, gate: FakeGate) -> None:
    world.record("Advance", "Progressing", "abc", is_warning=False)
    [(hook, payload)] = gate.calls
    assert hook == "event"
    assert payload["metadata"] | {"timestamp": ""} == {
        "eventMessage": "Advance",
        "eventType": "Normal",
        "timestamp": "",
    }
    assert int(payload["metadata"]["timestamp"]) > 1_600_000_000_000


def test_promotion_copies_the_template_under_the_primarys_label(world: ClusterWorld) -> None:
    world.create_primary()
    adapter = {"name": "adapter", "version": "2", "uri": "/lake/adapters/x", "digest": "b" * 64}
    sync(world.cluster, {"adapter": adapter})
    world.promote()
    target, primary = (world.cluster.get("Deployment", name) for name in (NAME, PRIMARY))
    assert target and primary
    copied = primary["spec"]["template"]["metadata"]
    assert copied["labels"]["app"] == PRIMARY
    assert copied["annotations"].pop("flagger-id")
    assert copied["annotations"] == target["spec"]["template"]["metadata"]["annotations"]
    assert primary["spec"]["template"]["spec"] == target["spec"]["template"]["spec"]


def test_sync_keeps_flaggers_replicas_and_the_objects_identity(world: ClusterWorld) -> None:
    world.scale_target_to_zero()
    before = world.cluster.get("Deployment", NAME)
    sync(world.cluster, {"rolloutNonce": "again"})
    after = world.cluster.get("Deployment", NAME)
    assert before and after
    assert after["spec"]["replicas"] == 0
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert after["metadata"]["generation"] == before["metadata"]["generation"] + 1


def test_going_back_in_git_gives_back_the_spec_hash(world: ClusterWorld) -> None:
    before = world.target_spec()
    for nonce in ("again", ""):
        sync(world.cluster, {"rolloutNonce": nonce})
        assert (world.target_spec() == before) is (nonce == "")


def test_status_says_whether_the_revision_was_promoted(world: ClusterWorld) -> None:
    for phase, promoted in (("Progressing", "Unknown"), ("Succeeded", "True"), ("Failed", "False")):
        world.publish(Status(phase, failed_checks=1, canary_weight=20, last_applied_spec="a", last_promoted_spec="b"))
        canary = world.cluster.get("Canary", NAME)
        assert canary
        [condition] = canary["status"]["conditions"]
        assert (condition["type"], condition["status"], condition["reason"]) == ("Promoted", promoted, phase)
        assert canary["status"]["failedChecks"] == 1


SCALER = {
    "apiVersion": "autoscaling/v2",
    "kind": "HorizontalPodAutoscaler",
    "metadata": {"name": NAME},
    "spec": {"scaleTargetRef": {"kind": "Deployment", "name": NAME}, "minReplicas": 2, "maxReplicas": 5},
}


def test_with_an_autoscaler_replicas_are_its_and_primary_gets_one_of_its_own(world: ClusterWorld) -> None:
    world.cluster.apply(SCALER)
    ref = {"kind": "HorizontalPodAutoscaler", "name": NAME, "primaryScalerReplicas": {"maxReplicas": 9}}
    world.cluster.update("Canary", NAME, lambda stored: stored["spec"].update(autoscalerRef=ref))
    world.create_primary()
    world.reconcile_scaler(is_update=False)
    made = world.cluster.get("HorizontalPodAutoscaler", PRIMARY)
    assert made
    assert made["spec"]["scaleTargetRef"]["name"] == PRIMARY
    assert (made["spec"]["minReplicas"], made["spec"]["maxReplicas"]) == (2, 9)
    world.cluster.apply({**SCALER, "spec": SCALER["spec"] | {"minReplicas": 3}})
    world.reconcile_scaler(is_update=False)
    assert world.cluster.get("HorizontalPodAutoscaler", PRIMARY) == made
    world.reconcile_scaler(is_update=True)
    again = world.cluster.get("HorizontalPodAutoscaler", PRIMARY)
    assert again
    assert again["spec"]["minReplicas"] == 3
    world.scale_target_to_zero()
    world.scale_target_up()
    assert replicas(world, NAME) == 3
    world.cluster.update("Deployment", PRIMARY, lambda stored: stored["spec"].update(replicas=4))
    world.promote()
    assert replicas(world, PRIMARY) == 4


def replicas(world: ClusterWorld, name: str) -> int:
    deployment = world.cluster.get("Deployment", name)
    assert deployment
    return int(deployment["spec"]["replicas"])


def test_tracked_secrets_are_copied_for_primary_and_untracked_ones_are_left(world: ClusterWorld) -> None:
    sync(world.cluster, {"credentials": {"secretName": "router"}, "env": [TRACKED]})
    for name, annotations in (("router", {"flagger.app/config-tracking": "disabled"}), ("extra", {})):
        with pytest.raises(ClusterError, match=r"Secret (router|extra)\.ratchet get query error"):
            world.target_configs()
        metadata = {"name": name, "annotations": annotations}
        world.cluster.apply({"kind": "Secret", "metadata": metadata, "data": {"key": "1"}})
    assert set(world.target_configs()) == {"secret/extra"}
    world.create_primary()
    copied = world.cluster.get("Secret", "extra-primary")
    assert copied
    assert copied["data"] == {"key": "1"}
    primary = world.cluster.get("Deployment", PRIMARY)
    assert primary
    named = {name for _, name in workloads.config_refs(primary["spec"]["template"])}
    assert named == {"router", "extra-primary"}


TRACKED = {"name": "EXTRA", "valueFrom": {"secretKeyRef": {"name": "extra", "key": "key"}}}


def test_layers_merge_as_helm_merges_them() -> None:
    below = {"analysis": {"interval": "60s", "stepWeights": [10, 50]}, "lake": "a"}
    assert merge(below, {"analysis": {"stepWeights": [20]}}, {"lake": "b"}) == {
        "analysis": {"interval": "60s", "stepWeights": [20]},
        "lake": "b",
    }


def test_a_cluster_that_is_killed_goes_on_where_it_was(tmp_path: Path, gate_url: str) -> None:
    state = tmp_path / "cluster.json"
    world = ClusterWorld(cluster_of({"gate": {"url": gate_url}}, state), NAME)
    world.create_primary()
    world.reconcile_route()
    world.set_weights(80, 20)
    before = Status("Progressing", 1, 20, last_applied_spec="b", last_promoted_spec="a", tracked_configs={})
    world.publish(before)
    world.client.close()
    again = ClusterWorld(Cluster("ratchet", state), NAME)
    assert again.status() == before
    assert again.weights() == (80, 20)
    assert again.primary_readiness() is Readiness.WAITING  # its pods ended with it
    again.client.close()
