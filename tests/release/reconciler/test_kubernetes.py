"""What is read from the cluster's objects, and by which credentials."""

from pathlib import Path
from typing import Any

import httpx
import pytest

from ratchet.adapter_ref import PREFIX
from ratchet.errors import UserError
from ratchet.release.reconciler import kubernetes
from ratchet.release.reconciler.kubernetes import ClusterReader, snapshot_of
from support.release_edges import NEW, OLD, FakeCluster


def test_the_service_accounts_token_is_read_anew_for_each_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kubernetes replaces the file before the token expires; a token that was kept would be refused then."""
    monkeypatch.setattr(kubernetes, "SERVICE_ACCOUNT", tmp_path)
    seen = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers.get("Authorization"))
        return httpx.Response(200)

    with httpx.Client(auth=kubernetes._ServiceAccount(), transport=httpx.MockTransport(answer)) as client:
        for token in ("first", "second"):
            (tmp_path / "token").write_text(f"{token}\n")
            client.get("https://kubernetes.default.svc/")
        client.get("http://127.0.0.1/")  # the rehearsal
    assert seen == ["Bearer first", "Bearer second", None]


def test_a_snapshot_tells_clock_nonces_and_pods(cluster: FakeCluster) -> None:
    cluster.start_run(weight=20)
    cluster.nonces["target"], cluster.is_primary_up, cluster.skip_analysis = "attempt-2", False, True
    with ClusterReader(cluster.url, "ratchet", "adapter-router") as reader:
        seen = reader.look()
    assert (seen.phase, seen.weight, seen.interval_s, seen.skip_analysis) == ("Progressing", 20, 10.0, True)
    assert (seen.target, seen.target_nonce, seen.is_target_up) == (NEW, "attempt-2", True)
    assert (seen.primary, seen.primary_nonce, seen.is_primary_up) == (OLD, "", False)
    assert seen.condition_at == cluster.condition_at


def deployment(wanted: int, status: dict[str, int]) -> dict[str, Any]:
    annotations = {PREFIX + key: value for key, value in NEW.model_dump().items()}
    spec = {"replicas": wanted, "template": {"metadata": {"annotations": annotations}}}
    return {"metadata": {"name": "router", "generation": 2}, "spec": spec, "status": status}


CANARY = {"metadata": {"name": "router"}}
ROUTE = {"spec": {"rules": [{"backendRefs": [{"name": "router-primary", "weight": 1}]}]}}
WHOLE = {"observedGeneration": 2, "replicas": 1, "updatedReplicas": 1, "availableReplicas": 1}


@pytest.mark.parametrize(
    ("found", "is_up"),
    [
        (deployment(1, WHOLE), True),
        (deployment(1, WHOLE | {"observedGeneration": 1}), False),  # a template that nobody has seen
        (deployment(1, WHOLE | {"replicas": 2}), False),  # an old pod is still there
        (deployment(1, WHOLE | {"availableReplicas": 0}), False),
        (deployment(0, dict.fromkeys(WHOLE, 0) | {"observedGeneration": 2}), False),  # ready to Flagger, and nobody
    ],
)
def test_a_target_is_up_that_has_pods_and_all_of_them_available(found: dict[str, Any], is_up: bool) -> None:
    assert snapshot_of(CANARY, found, deployment(1, WHOLE), ROUTE).is_target_up is is_up


def test_deployments_of_another_chart_are_refused() -> None:
    other = deployment(1, WHOLE)
    other["spec"]["template"]["metadata"] = {}
    with pytest.raises(UserError, match="Deployment router has no ratchet"):
        snapshot_of(CANARY, deployment(1, WHOLE), other, ROUTE)
