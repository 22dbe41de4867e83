"""Deployments as real router processes over a fake pool."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from ratchet.digest import digest_tree
from ratchet.errors import UserError
from ratchet.inference.adapter_pool import AdapterPool
from ratchet.rehearsal.argo import OVERLAY, merge, render
from ratchet.rehearsal.cluster import Cluster
from ratchet.rehearsal.flagger import Readiness
from ratchet.rehearsal.kubelet import Kubelet, resolve
from ratchet.rehearsal.workloads import readiness
from support.rehearsal_fakes import FakePool, served
from support.router_client import OPERATOR

CHART = Path(__file__).resolve().parents[2] / "charts" / "adapter-router"
NAME = "adapter-router"
PATIENCE_S = 60.0  # for a busy machine; an idle one needs two


class Node:
    """A kubelet at work in its thread, with its cluster and its pool."""

    def __init__(self, folder: Path, pool: FakePool, url: str) -> None:
        self.folder, self.pool, self.url = folder, pool, url
        self.cluster = Cluster("ratchet")
        self.kubelet = Kubelet(self.cluster, AdapterPool(url), folder / "logs")
        self.versions = 0

    def adapter(self) -> dict[str, str]:
        self.versions += 1
        folder = self.folder / "lake" / "adapters" / f"adapter-{self.versions}"
        folder.mkdir(parents=True)
        (folder / "adapter_config.json").write_text(f'{{"version": {self.versions}}}')
        version, digest = str(self.versions), digest_tree(folder)
        return {"name": "adapter", "version": version, "uri": str(folder), "digest": digest}

    def deploy(self, adapter: dict[str, str], name: str = NAME, **values: Any) -> None:
        values |= {"adapter": adapter, "name": name, "pool": {"url": self.url}, "lake": str(self.folder / "lake")}
        overlay = yaml.safe_load((CHART / OVERLAY).read_text())
        manifests = render(CHART, merge(overlay, values), "ratchet")
        self.cluster.apply(next(manifest for manifest in manifests if manifest["kind"] == "Deployment"))

    def readiness(self, name: str = NAME) -> Readiness:
        deployment = self.cluster.get("Deployment", name)
        assert deployment
        return readiness(deployment)

    def said(self, text: str) -> bool:
        return any(text in event["text"] for event in self.cluster.events())


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    pool, stop = FakePool(), threading.Event()
    with served(pool) as url:
        node = Node(tmp_path_factory.mktemp("node"), pool, url)
        thread = threading.Thread(target=node.kubelet.run, args=[stop])
        thread.start()
        try:
            yield node
        finally:
            stop.set()
            thread.join()
            node.kubelet.close()


@pytest.fixture
def serving(node: Node) -> Node:
    """A node whose router serves an adapter."""
    if not node.cluster.get("Deployment", NAME):
        node.deploy(node.adapter())
    wait_for(lambda: node.readiness() is Readiness.READY, "the router is ready")
    return node


def wait_for(claim: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not claim():
        assert time.monotonic() < deadline, f"not within {PATIENCE_S} s: {what}"
        time.sleep(0.05)


def digest_served(node: Node) -> str | None:
    url = node.cluster.endpoint(NAME)
    if url is None:
        return None
    body = {"model": "assistant", "messages": [{"role": "user", "content": "hello"}]}
    answer = httpx.post(f"{url}/v1/chat/completions", json=body, headers=OPERATOR, trust_env=False)
    return answer.headers["x-adapter-digest"]


def test_new_template_takes_over_without_a_gap_and_the_old_adapter_is_unloaded(serving: Node) -> None:
    node, adapter, before = serving, serving.adapter(), set(serving.pool.adapters)
    node.deploy(adapter)
    seen = set()
    deadline = time.monotonic() + PATIENCE_S
    while adapter["digest"] not in seen and time.monotonic() < deadline:
        seen.add(digest_served(node))
    assert adapter["digest"] in seen
    assert None not in seen
    wait_for(lambda: node.readiness() is Readiness.READY, "only the new pod is left")
    wait_for(lambda: not before & set(node.pool.adapters), "the old adapter is unloaded")


def test_crashed_router_leaves_the_endpoint_and_is_started_again(serving: Node) -> None:
    pod = serving.kubelet.workloads[NAME].serving
    assert pod
    pod.process.kill()
    wait_for(lambda: serving.cluster.endpoint(NAME) is None, "the endpoint is withdrawn")
    wait_for(lambda: serving.readiness() is Readiness.READY, "the router is back")
    assert serving.said("exited -9")


def test_pool_that_forgot_its_adapters_gets_them_back(serving: Node) -> None:
    loaded = dict(serving.pool.adapters)
    assert loaded
    serving.pool.adapters.clear()
    wait_for(lambda: serving.pool.adapters == loaded, "the adapters are loaded again")
    assert serving.cluster.endpoint(NAME), "one bad probe does not take a router out of service"


def test_adapter_that_is_not_what_its_digest_says_never_serves(node: Node) -> None:
    node.deploy(node.adapter() | {"version": "90", "digest": "0" * 64}, name="tampered", progressDeadlineSeconds=1)
    wait_for(lambda: node.said("adapter@v90 will not be served"), "the kubelet says why")
    wait_for(lambda: node.readiness("tampered") is Readiness.STUCK, "the deadline passes")
    assert "adapter@v90" not in node.pool.adapters
    node.cluster.update("Deployment", "tampered", lambda found: found["spec"].update(replicas=0))
    wait_for(lambda: node.readiness("tampered") is Readiness.READY, "at zero replicas nothing is missing")


def test_environment_is_literals_labels_and_secrets() -> None:
    cluster = Cluster("ratchet")
    cluster.apply({"kind": "Secret", "metadata": {"name": "s"}, "data": {"k": "c2VjcmV0"}})
    path = {"fieldRef": {"fieldPath": "metadata.labels['app']"}}
    env = [{"name": "A", "value": "1"}, {"name": "B", "valueFrom": path}]
    template = {"metadata": {"labels": {"app": "router-primary"}}, "spec": {"containers": [{"env": env}]}}
    env.append({"name": "C", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}})
    env.append({"name": "D", "valueFrom": {"secretKeyRef": {"name": "s", "key": "none", "optional": True}}})
    assert resolve(template, cluster) == {"A": "1", "B": "router-primary", "C": "secret"}
    for name, origin in (("E", {"secretKeyRef": {"name": "none", "key": "k"}}), ("F", {"resourceFieldRef": {}})):
        with pytest.raises(UserError, match=r"Secret none has no key k|env F"):
            resolve({**template, "spec": {"containers": [{"env": [{"name": name, "valueFrom": origin}]}]}}, cluster)
