"""`ratchet doctor` on a site of real parts, whole, and with one fault planted at a time.

Real: the S3 server (moto, with its own enforcement of policies), Git over HTTP, Prometheus, the gate, the charts by
Helm. Stand-ins, named where they are made: Kubernetes' API, Flagger's Deployment, Kubeflow's and a judge's endpoints.
"""

import copy
import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse
from typer.testing import CliRunner

from ratchet.access import ROLES, STEPS
from ratchet.config import Config
from ratchet.registry.mlflow_store import connect
from ratchet.release.gate.tokens import VARIABLE, hook_token
from ratchet.store import LocalStore, S3Store, open_lake
from ratchet_pipelines.cli.doctor import CHECKS
from ratchet_pipelines.cli.main import app
from ratchet_pipelines.doctor.findings import Finding, Site, examine
from support.git_server import bare_repository, git_server, need_git_http
from support.helm_chart import Chart
from support.http_server import running
from support.kubernetes_api import KubernetesApi
from support.prometheus_server import Prometheus, need_prometheus, prometheus
from support.release_edges import VALUES
from support.s3_server import s3_server

GATE_TOKEN, GIT_TOKEN = "a-token-of-the-gates-own", "a-token-for-git"
VALUES_PATH = "adapter.yaml"
SECRETS = {  # those of docs/argo.md without which a pod of the charts does not start
    "ratchet-router": ["secret", "api-keys", "operator-token"],
}
POD = "adapter-router-primary-5d8f-k2x9z"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
BASE = "example/base-8b"
METRICS = """
ratchet_requests_total{status="200"} 7
ratchet_request_latency_seconds_bucket{le="1"} 7
ratchet_request_latency_seconds_bucket{le="+Inf"} 7
"""


@dataclass
class World:
    """Everything that the doctor looks at, each part to be broken."""

    folder: Path
    site: Site
    cluster: KubernetesApi
    writers: dict[str, set[str]]
    answers: dict[str, tuple[int, Any]]
    """What the stand-ins for Kubeflow, the judge and the pool answer, by path."""
    changes: dict[str, Any] = field(default_factory=dict)

    def look(self) -> list[Finding]:
        return list(examine(replace(self.site, **self.changes), CHECKS))

    def odd(self) -> list[Finding]:
        """What is not as it should be, besides that no role was named."""
        return [finding for finding in self.look() if finding.state != "ok" and finding.check != "rights"]

    def configure(self, section: str, **values: Any) -> None:
        config = self.changes.get("config", self.site.config)
        part = getattr(config, section).model_copy(update=values)
        self.changes["config"] = config.model_copy(update={section: part})

    def object(self, kind: str, name: str) -> dict[str, Any]:
        return self.cluster.find(kind, name)


def flagger() -> dict[str, Any]:
    """Flagger's Deployment, by the names, labels and flags of its chart 1.44.0 (templates/deployment.yaml)."""
    command = ["./flagger", "-log-level=info", "-mesh-provider=gatewayapi:v1", "-metrics-server=none"]
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": "flagger", "namespace": "flagger-system", "labels": {"app.kubernetes.io/name": "flagger"},
        },
        "spec": {
            "template": {"spec": {"containers": [{
                "name": "flagger", "image": "ghcr.io/fluxcd/flagger:1.44.0", "command": command,
            }]}},
        },
        "status": {"availableReplicas": 1},
    }  # fmt: skip


def others(platform_url: str) -> list[dict[str, Any]]:
    """What Kubernetes, Argo CD and the Gateway API's CRDs add to what the charts make."""
    labels = {"kubernetes.io/metadata.name": "flagger-system"}
    ready = [{"addresses": ["10.0.0.7"], "conditions": {"ready": True}}]
    return [
        flagger(),
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "flagger-system", "labels": labels}},
        {
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "endpoints": ready,
            "metadata": {"name": "gate-x7f", "labels": {"kubernetes.io/service-name": "gate"}},
        },
        {
            "apiVersion": "argoproj.io/v1alpha1", "kind": "Application",
            "metadata": {"name": "ratchet", "namespace": "argocd"},
            "spec": {"project": "ratchet-root", "source": {"repoURL": platform_url, "path": "infra/argocd"}},
        },
        {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "metadata": {"name": "ratchet"}},
        {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {"name": "adapter-router"}},
        {
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": "gpu-1"},
            "status": {"allocatable": {"nvidia.com/gpu": "4"}},
        },
    ]  # fmt: skip


def grant(url: str, role: str, lake: str, *, without: str = "") -> tuple[str, str]:
    """A user of the S3 server with the rights of a role, as moto enforces them; access key and secret."""
    iam, access = boto3.client("iam", endpoint_url=url), ROLES[role]
    name = f"{role}-{lake}-without-{without or 'nothing'}"
    arn = f"arn:aws:s3:::{lake}"
    statements = [
        {"Effect": "Allow", "Action": ["s3:ListBucket"], "Resource": [arn]},
        {"Effect": "Allow", "Action": ["s3:GetObject"], "Resource": [f"{arn}/{each}/*" for each in access.read]},
        {
            "Effect": "Allow",
            "Action": ["s3:PutObject", "s3:AbortMultipartUpload"],
            "Resource": [f"{arn}/.ratchet*", *(f"{arn}/{each}/*" for each in access.write if each != without)],
        },
        {"Effect": "Allow", "Action": ["s3:DeleteObject"], "Resource": [f"{arn}/{each}/*" for each in access.delete]},
    ]
    iam.create_user(UserName=name)
    policy = json.dumps({"Version": "2012-10-17", "Statement": [each for each in statements if each["Resource"]]})
    iam.put_user_policy(UserName=name, PolicyName="lake", PolicyDocument=policy)
    key = iam.create_access_key(UserName=name)["AccessKey"]
    iam.close()
    return key["AccessKeyId"], key["SecretAccessKey"]


def stand_ins(answers: dict[str, tuple[int, Any]]) -> FastAPI:
    service = FastAPI()

    @service.get("/metrics")
    async def metrics() -> PlainTextResponse:
        return PlainTextResponse(METRICS.lstrip())

    @service.api_route("/{path:path}", methods=["GET", "HEAD"])
    async def answer(path: str) -> JSONResponse:
        status, body = answers.get(f"/{path}", (404, {}))
        return JSONResponse(body, status_code=status)

    return service


@pytest.fixture(scope="module")
def s3() -> Iterator[dict[str, Any]]:
    """An S3 server that enforces policies; keys of the steps' role, and of one that lacks parts/."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("INITIAL_NO_AUTH_ACTION_COUNT", "1000")
        with s3_server("lake") as url:
            keys = {without: grant(url, "steps", "lake", without=without) for without in ("", "parts")}
            keys["wide"] = grant(url, "pipelines", "lake")
            plain = {"Content-Type": "text/plain"}
            httpx.post(f"{url}/moto-api/reset-auth", content=b"0", headers=plain).raise_for_status()
            yield {"url": url, "keys": keys}


def sign_in(monkeypatch: pytest.MonkeyPatch, keys: tuple[str, str]) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", keys[0])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", keys[1])
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)  # it keeps the first keys that it saw


@pytest.fixture(scope="module")
def tracking(tmp_path_factory: pytest.TempPathFactory) -> str:
    """MLflow's database, which takes seconds to make."""
    uri = f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"
    connect(Config.model_validate({"registry": {"tracking_uri": uri}}), LocalStore(tmp_path_factory.mktemp("lake")))
    return uri


@pytest.fixture(scope="module")
def answers() -> dict[str, tuple[int, Any]]:
    return {}


@pytest.fixture(scope="module")
def plain(answers: dict[str, tuple[int, Any]]) -> Iterator[str]:
    with running(stand_ins(answers)) as url:
        yield url


@pytest.fixture(scope="module")
def metrics(tmp_path_factory: pytest.TempPathFactory, plain: str) -> Iterator[Prometheus]:
    """Prometheus, which reads a router's pod."""
    need_prometheus()
    with prometheus(tmp_path_factory.mktemp("prometheus"), "no-token") as server:
        server.scrape({POD: plain})
        server.wait_for("sum(rate(ratchet_requests_total[1m]))", [0.0])
        yield server


@pytest.fixture
def world(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    s3: dict[str, Any],
    tracking: str,
    metrics: Prometheus,
    plain: str,
    answers: dict[str, tuple[int, Any]],
) -> Iterator[World]:
    """A whole site: nothing is missing."""
    need_git_http()
    sign_in(monkeypatch, s3["keys"][""])
    monkeypatch.setenv(VARIABLE, GATE_TOKEN)
    monkeypatch.setenv("RATCHET_JUDGE_KEY", "k")
    for name, value in (
        ("COUNT", "1"), ("KEY_0", "http.extraHeader"), ("VALUE_0", f"Authorization: Bearer {GIT_TOKEN}"),
    ):  # fmt: skip
        monkeypatch.setenv(f"GIT_CONFIG_{name}", value)
    bare_repository(tmp_path, "deploy", {VALUES_PATH: VALUES, "README.md": "Written by machines.\n"})
    bare_repository(tmp_path, "platform", {"infra/argocd/root.yaml": "kind: AppProject\n"})
    writers = {"deploy": {GIT_TOKEN}}
    answers.clear()
    answers |= {
        "/v1/models": (200, {"data": [{"id": BASE}]}),
        "/models": (200, {"data": []}),
        f"/{BASE}/resolve/{COMMIT}/config.json": (200, {}),
        "/apis/v2beta1/healthz": (200, {"tag_name": "2.17.0"}),
        "/state": (200, {}),
    }
    with ExitStack() as services:
        git_url = services.enter_context(git_server(tmp_path, writers))
        monkeypatch.setenv("HF_ENDPOINT", plain)
        router = {
            "gate": {"token": hook_token(GATE_TOKEN)},
            "prometheus": {"address": metrics.url},
            "podMonitor": {"enabled": True},
        }
        model = {"id": BASE, "revision": COMMIT}
        charts = [
            *Chart("adapter-router").render(**router),
            *Chart("release-services").render(),
            *Chart("model-pool").render(model=model),
        ]
        for each in charts:
            if each["kind"] == "Deployment":
                each["status"] = {"availableReplicas": each["spec"].get("replicas", 1)}
        secrets = [{"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": dict.fromkeys(keys, "")}
                   for name, keys in SECRETS.items()]  # fmt: skip
        cluster = KubernetesApi([*charts, *secrets, *others(f"{git_url}/platform.git")], "ratchet")
        cluster_url = services.enter_context(running(cluster.app))

        config = Config.model_validate(
            {
                "base_model": {"model": BASE, "revision": COMMIT},
                "registry": {"tracking_uri": tracking},
                "evaluate_adapter": {"judge": {"style": "openai", "url": plain, "model": "judge"}},
                "release_adapter": {
                    "git_url": f"{git_url}/deploy.git",
                    "values_path": VALUES_PATH,
                    "cluster_url": cluster_url,
                    "gate_url": plain,
                    "timeout_s": 100_000,
                    "approval": "person",
                },
            }
        )
        site = Site(
            config=config,
            store=open_lake("s3://lake"),
            now=time.time(),
            cluster_url=cluster_url,
            pool_url=plain,
            kubeflow_url=plain,
        )
        yield World(tmp_path, site, cluster, writers, answers)


def test_a_whole_site_lacks_nothing(world: World) -> None:
    world.changes["role"] = "steps"
    found = world.look()
    assert [finding for finding in found if finding.state != "ok"] == []
    assert len({finding.check.partition(".")[0] for finding in found}) >= 15


def hooks_call(address: str) -> Callable[[World], None]:
    def plant(world: World) -> None:
        for hook in world.object("Canary", "adapter-router")["spec"]["analysis"]["webhooks"]:
            hook["url"] = f"{address}/hooks/{hook['type']}"

    return plant


def vllm(world: World) -> dict[str, Any]:
    container: dict[str, Any] = world.object("Deployment", "model-pool")["spec"]["template"]["spec"]["containers"][0]
    return container


def lower_rank(world: World) -> None:
    vllm(world)["args"] = [
        "--max-lora-rank=1" if word.startswith("--max-lora-rank") else word for word in vllm(world)["args"]
    ]


def no_runtime_updates(world: World) -> None:
    vllm(world)["env"] = [each for each in vllm(world)["env"] if "RUNTIME" not in each["name"]]


def other_mesh(world: World) -> None:
    command = world.object("Deployment", "flagger")["spec"]["template"]["spec"]["containers"][0]["command"]
    command[2] = "-mesh-provider=istio"


def shut_the_gate(world: World) -> None:
    for rule in world.object("NetworkPolicy", "gate")["spec"]["ingress"]:
        rule["from"] = [{"podSelector": {}}]


def no_crds(world: World) -> None:
    world.cluster.objects = [each for each in world.cluster.objects if each["kind"] not in ("Gateway", "HTTPRoute")]


def unbound(world: World) -> None:
    world.cluster.objects = [each for each in world.cluster.objects if each["kind"] != "RoleBinding"]


def no_pod_ready(world: World) -> None:
    world.object("EndpointSlice", "gate-x7f")["endpoints"][0]["conditions"]["ready"] = False


def rename_metrics_target(world: World) -> None:
    """As where no PodMonitor selects these pods: the queries ask for names that Prometheus has not read."""
    for name in ("errors", "latency"):
        spec = world.object("MetricTemplate", f"adapter-router-{name}")["spec"]
        spec["query"] = spec["query"].replace("{{ target }}", "unread-{{ target }}")


PLANTED: dict[str, tuple[Callable[[World], Any], set[str]]] = {
    "the clock is ten minutes off": (lambda w: w.changes.update(now=w.site.now + 600), {"clock"}),
    "the token may push to the platform's repository": (
        lambda w: w.writers.update(platform={GIT_TOKEN}), {"git.elsewhere"},
    ),
    "the token may not push": (lambda w: w.writers.clear(), {"git.push"}),
    "the repository is not there": (
        lambda w: w.configure("release_adapter", git_url=f"{w.site.config.release_adapter.git_url}x"), {"git"},
    ),
    "the repository holds more than the adapter": (
        lambda w: bare_repository(w.folder, "wide", {VALUES_PATH: VALUES, "infra/root.yaml": "kind: AppProject"})
        or w.writers.update(wide={GIT_TOKEN})
        or w.configure("release_adapter", git_url=w.site.config.release_adapter.git_url.replace("deploy", "wide")),
        {"git.alone"},
    ),
    "the values file is not there": (lambda w: w.configure("release_adapter", values_path="other.yaml"), {"git"}),
    "the gate's address has no namespace": (hooks_call("http://gate:8000"), {"gate.address"}),
    "the gate's address is another namespace's": (hooks_call("http://gate.elsewhere.svc:8000"), {"gate.address"}),
    "the gate's address has another port": (hooks_call("http://gate.ratchet.svc:8080"), {"gate.address"}),
    "no pod of the gate is ready": (no_pod_ready, {"gate.ready"}),
    "the gate admits no pod of Flagger's namespace": (shut_the_gate, {"gate.policy"}),
    "the webhooks carry an old token": (
        lambda w: w.object("Canary", "adapter-router")["spec"]["analysis"]["webhooks"][0].update(
            metadata={"token": "0" * 32}
        ),
        {"gate.token"},
    ),
    "the gate does not know us": (lambda w: w.answers.update({"/state": (401, {})}), {"gate"}),
    "Flagger speaks to another mesh": (other_mesh, {"flagger"}),
    "the Gateway API is not installed": (no_crds, {"cluster.gateway.networking.k8s.io/v1"}),
    "Kubernetes is old": (lambda w: setattr(w.cluster, "version", ("1", "27")), {"cluster"}),
    "the release may not look at the canary": (unbound, {"account.release"}),
    "Prometheus does not read the routers": (
        rename_metrics_target, {"prometheus.adapter-router-errors", "prometheus.adapter-router-latency"},
    ),
    "vLLM takes smaller adapters than training makes": (lower_rank, {"pool"}),
    "vLLM takes no adapters at run time": (no_runtime_updates, {"pool"}),
    "the pool serves another model": (
        lambda w: w.answers.update({"/v1/models": (200, {"data": [{"id": "other"}]})}), {"pool.models"},
    ),
    "Kubeflow is old": (
        lambda w: w.answers.update({"/apis/v2beta1/healthz": (200, {"tag_name": "2.5.0"})}), {"kubeflow"},
    ),
    "the gate admits another port": (
        lambda w: w.object("NetworkPolicy", "gate")["spec"]["ingress"][0].update(ports=[{"port": 9090}]),
        {"gate.policy"},
    ),
    "the gate admits another pod of that namespace": (
        lambda w: w.object("NetworkPolicy", "gate")["spec"]["ingress"][0].update(
            {"from": [{"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "loadtester"}}}]}
        ),
        {"gate.policy"},
    ),
    "a Secret is not there": (
        lambda w: w.cluster.objects.remove(w.object("Secret", "ratchet-router")), {"workloads.ratchet"},
    ),
    "a Secret lacks a key": (
        lambda w: w.object("Secret", "ratchet-router")["data"].pop("api-keys"), {"workloads.ratchet"},
    ),
    "a ConfigMap is not there": (
        lambda w: w.cluster.objects.remove(w.object("ConfigMap", "ratchet-config")), {"workloads.ratchet"},
    ),
    "a pod does not start": (
        lambda w: w.object("Deployment", "gate").update(status={"availableReplicas": 0}), {"workloads.ratchet"},
    ),
    "the judge fails": (lambda w: w.answers.update({"/models": (500, {})}), {"judge"}),
    "the judge does not know the key": (lambda w: w.answers.update({"/models": (401, {})}), {"judge"}),
    "the hub does not know the token": (
        lambda w: w.answers.update({f"/{BASE}/resolve/{COMMIT}/config.json": (403, {})}), {"hub"},
    ),
    "the release gives up before the gate": (
        lambda w: w.configure("release_adapter", timeout_s=86400), {"settings.timeout"},
    ),
    "MLflow is away": (lambda w: w.configure("registry", tracking_uri="http://127.0.0.1:9"), {"mlflow"}),
}  # fmt: skip


@pytest.mark.parametrize(("plant", "expected"), PLANTED.values(), ids=PLANTED)
def test_a_planted_fault_is_found_and_nothing_else(
    world: World, plant: Callable[[World], Any], expected: set[str]
) -> None:
    plant(world)
    found = [finding for finding in world.look() if finding.state == "missing"]
    assert {finding.check for finding in found} == expected
    assert all(finding.do for finding in found)


def test_a_role_that_lacks_a_folder_is_found(world: World, monkeypatch: pytest.MonkeyPatch, s3: dict[str, Any]) -> None:
    sign_in(monkeypatch, s3["keys"]["parts"])
    world.changes |= {"store": open_lake("s3://lake"), "role": "steps"}
    found = [finding for finding in world.look() if finding.state == "missing"]
    assert [finding.check for finding in found] == ["rights.write.parts"]
    assert "AccessDenied" in found[0].what


def test_a_role_that_may_do_more_is_told(world: World, monkeypatch: pytest.MonkeyPatch, s3: dict[str, Any]) -> None:
    sign_in(monkeypatch, s3["keys"]["wide"])
    world.changes |= {"store": open_lake("s3://lake"), "role": "steps"}
    found = [finding for finding in world.look() if finding.state != "ok"]
    assert [(finding.check, finding.state) for finding in found] == [("rights.more.write", "warning")]
    assert "ledger" in found[0].what


def test_a_server_that_ignores_conditions_is_found() -> None:
    with s3_server("careless"):
        site = Site(config=Config(), store=S3Store("s3://careless"), now=time.time())
        found = [finding for finding in examine(site, CHECKS[:1]) if finding.state == "missing"]
    assert "ignores If-None-Match" in found[0].what


def test_a_trial_of_rights_leaves_nothing_behind(world: World) -> None:
    world.changes["role"] = "steps"
    world.look()
    site = world.site
    keys = [key for key in site.store.list("") if not key.startswith(".ratchet-conditional")]
    assert keys == []
    for folder in STEPS.write:
        assert not site.store.exists(folder)


def test_a_laptop_that_has_nothing_but_a_folder_lacks_nothing(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["doctor", "--lake", str(tmp_path / "lake"), "--json"])
    found = json.loads(done.stdout)["findings"]
    assert done.exit_code == 0
    assert {each["state"] for each in found} <= {"ok", "unchecked"}
    assert all(each["do"] for each in found if each["check"] in ("git", "cluster", "rights"))
    assert not (tmp_path / "lake").exists()


def test_what_is_missing_is_exit_code_2_in_words_and_in_json(tmp_path: Path) -> None:
    config = tmp_path / "ratchet.yaml"
    config.write_text("release_adapter: {git_url: /nowhere/deploy.git, approval: person, timeout_s: 87000}\n")
    command = ["doctor", "--lake", str(tmp_path / "lake"), "--config", str(config)]
    for more in ([], ["--json"]):
        done = CliRunner().invoke(app, [*command, *more])
        assert done.exit_code == 2
    counts = json.loads(done.stdout)["counts"]
    assert counts["missing"] == 2  # the repository, and a timeout below the gate's


def test_the_token_goes_to_no_repository_of_another_team(world: World) -> None:
    asked: list[str] = []
    stranger = FastAPI()

    @stranger.get("/{path:path}")
    async def note(path: str, request: Request) -> JSONResponse:
        asked.append(request.headers.get("authorization", ""))
        return JSONResponse({}, status_code=404)

    with running(stranger) as url:
        theirs = copy.deepcopy(world.object("Application", "ratchet"))
        theirs["spec"] |= {"project": "other-team", "source": {"repoURL": f"{url}/theirs.git"}}
        world.cluster.objects.append(theirs)
        world.look()
    assert asked == []


@pytest.mark.parametrize(
    "plant",
    [
        lambda world: world.changes.update(not_writable=("https://no-such-host.invalid/x.git",)),
        lambda world: world.answers.update({"/models": (404, {})}),
        lambda world: world.configure("registry", tracking_uri="http://mlflow.ratchet.svc:5000"),
    ],
    ids=["a repository that does not answer", "a judge without a list", "a service of the cluster from a laptop"],
)
def test_what_could_not_be_tried_is_neither_ok_nor_missing(world: World, plant: Callable[[World], Any]) -> None:
    plant(world)
    assert [finding.state for finding in world.odd()] == ["unchecked"]


def test_without_the_releases_token_this_machines_own_login_is_not_tried(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GIT_CONFIG_COUNT")
    found = world.odd()
    assert [(finding.check, finding.state) for finding in found] == [("git.push", "unchecked")]
    assert "ratchet-git" in found[0].do


@pytest.mark.parametrize("kept", ["deploy", "deploy.git", "deploy.git/"])
def test_the_releases_own_repository_is_not_elsewhere_in_any_spelling(world: World, kept: str) -> None:
    base = world.site.config.release_adapter.git_url
    assert base is not None
    world.changes["not_writable"] = (base.replace("deploy.git", kept).replace("://", "://reader@"),)
    assert world.odd() == []


def test_no_password_is_said(world: World) -> None:
    world.configure("registry", tracking_uri="http://someone:s3cretpw@127.0.0.1:9/mlflow")
    world.configure("release_adapter", gate_url="http://someone:s3cretpw@127.0.0.1:9")
    said = " ".join(f"{finding.what} {finding.do}" for finding in world.look())
    assert "127.0.0.1:9" in said
    assert "s3cretpw" not in said


def test_a_file_is_no_lake(tmp_path: Path) -> None:
    (tmp_path / "lake").write_text("")
    site = Site(config=Config(), store=LocalStore(tmp_path / "lake"), now=time.time())
    assert next(iter(examine(site, CHECKS[:1]))).state == "missing"


def test_a_flagger_older_than_the_recordings_is_told(world: World) -> None:
    container = world.object("Deployment", "flagger")["spec"]["template"]["spec"]["containers"][0]
    container["image"] = "ghcr.io/fluxcd/flagger:1.37.0"
    assert [(finding.check, finding.state) for finding in world.odd()] == [("flagger", "warning")]
