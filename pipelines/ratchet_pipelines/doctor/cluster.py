"""The cluster: versions, Flagger, rights of the release, GPUs, the pool; and where Argo CD and Prometheus are named."""

from collections.abc import Iterator, Sequence

import httpx

from ratchet.errors import UserError
from ratchet.needs import RELEASE_ACCOUNT
from ratchet_pipelines.doctor.findings import Finding, Site
from ratchet_pipelines.doctor.kubernetes import Api, Object, containers_of, find_flagger

MIN_VERSION = (1, 30)
KNOWN_FLAGGER = (1, 44)  # whose behaviour was recorded (tests/rehearsal); of older ones we know nothing
PROVIDER = "gatewayapi:v1"
APIS = {
    "flagger.app/v1beta1": ("canaries", "metrictemplates"),
    "gateway.networking.k8s.io/v1": ("gateways", "httproutes"),
    "autoscaling/v2": ("horizontalpodautoscalers",),
}
READ_BY_RELEASE = (
    ("flagger.app", "canaries"),
    ("apps", "deployments"),
    ("gateway.networking.k8s.io", "httproutes"),
)
GPU = "nvidia.com/gpu"


def check_cluster(site: Site) -> Iterator[Finding]:
    """Kubernetes' version, and the kinds that the charts make."""
    if site.cluster_url is None:
        do = "`kubectl proxy &`, then --cluster http://127.0.0.1:8001; in a pod, release_adapter.cluster_url names it"
        yield Finding(check="cluster", state="unchecked", what="no cluster was named", do=do)
        return
    with Api.of(site.cluster_url) as api:
        version = api.get("/version") or {}
        text = f"{version.get('major', '0')}.{version.get('minor', '0')}"
        is_new = _numbers(text) >= MIN_VERSION
        wanted = ".".join(map(str, MIN_VERSION))
        do = "" if is_new else f"use Kubernetes {wanted} or newer"
        yield Finding(check="cluster", state="ok" if is_new else "missing", what=f"Kubernetes {text}", do=do)
        for group, kinds in APIS.items():
            there = {each["name"] for each in (api.get(f"/apis/{group}") or {}).get("resources", [])}
            if absent := [kind for kind in kinds if kind not in there]:
                what = f"the cluster has no {', '.join(absent)} of {group}"
                do = "install its CustomResourceDefinitions: docs/argo.md, step 1"
                yield Finding(check=f"cluster.{group}", state="missing", what=what, do=do)


def check_flagger(site: Site) -> Iterator[Finding]:
    """Flagger runs, is new enough, and speaks to the Gateway API."""
    if site.cluster_url is None:
        return
    with Api.of(site.cluster_url) as api:
        flagger = find_flagger(api)
    if flagger is None:
        do = "install its chart: infra/argocd has the Application"
        yield Finding(check="flagger", state="missing", what="no Deployment is labelled as Flagger's", do=do)
        return
    container = flagger["spec"]["template"]["spec"]["containers"][0]
    provider = _flag([*container.get("command", []), *container.get("args", [])], "mesh-provider")
    tag = container["image"].partition("@")[0].rpartition(":")[2]
    version = tag if _numbers(tag) else flagger["metadata"].get("labels", {}).get("app.kubernetes.io/version", "")
    place = f"Flagger {version} in {flagger['metadata']['namespace']}"
    if provider != PROVIDER:
        do = f"set the chart's meshProvider to {PROVIDER}: it makes no HTTPRoute otherwise"
        yield Finding(check="flagger", state="missing", what=f"{place} has the mesh provider {provider!r}", do=do)
    elif _numbers(version) and _numbers(version) < KNOWN_FLAGGER:
        known = ".".join(map(str, KNOWN_FLAGGER))
        what = f"{place} is older than {known}, which the release was tried with"
        yield Finding(check="flagger", state="warning", what=what, do=f"use {known} or newer")
    elif not flagger.get("status", {}).get("availableReplicas"):
        yield Finding(check="flagger", state="missing", what=f"{place} is not available", do="see its events and log")
    else:
        yield Finding(check="flagger", state="ok", what=f"{place}, {provider}")


def check_release_account(site: Site) -> Iterator[Finding]:
    """The service account that releases may look at what it has to look at."""
    if site.cluster_url is None:
        return
    namespace = site.config.release_adapter.namespace
    user = f"system:serviceaccount:{namespace}:{RELEASE_ACCOUNT}"
    with Api.of(site.cluster_url) as api:
        refused = [kind for group, kind in READ_BY_RELEASE if not _may_get(api, user, namespace, group, kind)]
    if refused:
        what = f"{RELEASE_ACCOUNT} may not get {', '.join(refused)} in {namespace}"
        do = "deploy charts/release-services, whose Role canary-reader says so"
        yield Finding(check="account.release", state="missing", what=what, do=do)
    else:
        yield Finding(check="account.release", state="ok", what=f"{RELEASE_ACCOUNT} may look at the canary")


def check_pool(site: Site) -> Iterator[Finding]:
    """VLLM's flags: adapters at run time, of the rank that training makes, on the base model that it trains."""
    if site.cluster_url is None:
        return
    namespace, base = site.config.release_adapter.namespace, site.config.base_model
    with Api.of(site.cluster_url) as api:
        deployments = api.items(f"/apis/apps/v1/namespaces/{namespace}/deployments")
    served = [each for deployment in deployments for each in containers_of(deployment) if _is_vllm(each)]
    if not served:
        what = f"no Deployment in {namespace} runs `vllm serve`"
        yield Finding(check="pool", state="missing", what=what, do="deploy charts/model-pool")
    for container in served:
        words = [*container.get("command", []), *container.get("args", [])]
        environment = {each["name"]: each.get("value", "") for each in container.get("env", [])}
        rank, needed = _flag(words, "max-lora-rank") or "16", site.config.train_adapter.lora.r  # vLLM's default: 16
        faults = {
            "--enable-lora": "--enable-lora" not in words,
            "VLLM_ALLOW_RUNTIME_LORA_UPDATING=True": environment.get("VLLM_ALLOW_RUNTIME_LORA_UPDATING") != "True",
            f"--max-lora-rank={needed} or more, instead of {rank}": int(rank) < needed,
            f"the base model {base.model}": base.model not in words,
        }
        if missing := [name for name, is_missing in faults.items() if is_missing]:
            do = "set the values of charts/model-pool: every adapter would be refused"
            yield Finding(check="pool", state="missing", what=f"vLLM lacks {'; '.join(missing)}", do=do)
        else:
            yield Finding(check="pool", state="ok", what=f"vLLM serves {base.model}, adapters to rank {rank}")


def check_gpus(site: Site) -> Iterator[Finding]:
    """GPUs for training besides those that serve."""
    if site.cluster_url is None or site.config.train_adapter.device != "cuda":
        return
    namespace = site.config.release_adapter.namespace
    with Api.of(site.cluster_url) as api:
        there = sum(int(each["status"].get("allocatable", {}).get(GPU, 0)) for each in api.items("/api/v1/nodes"))
        deployments = api.items(f"/apis/apps/v1/namespaces/{namespace}/deployments")
    serving = sum(
        int(deployment["spec"].get("replicas", 1)) * int(each.get("resources", {}).get("limits", {}).get(GPU, 0))
        for deployment in deployments
        for each in containers_of(deployment)
    )
    if there <= serving:
        what = f"{there} GPUs are there, and serving takes {serving}: none is left to train on"
        do = "let an autoscaler add nodes for training (infra/terraform, gpu_nodes), or add one; else it waits"
        yield Finding(check="gpu.nodes", state="warning", what=what, do=do)
    else:
        yield Finding(check="gpu.nodes", state="ok", what=f"{there} GPUs, of which serving takes {serving}")


def repositories(site: Site) -> set[str]:
    """The Git repositories that Applications of Ratchet's own projects follow; empty without a cluster or Argo CD.

    No others: a push asks the server with the release's token, which is nobody else's business.
    """
    if site.cluster_url is None:
        return set()
    try:
        with Api.of(site.cluster_url) as api:
            applications = api.items("/apis/argoproj.io/v1alpha1/applications")
    except (UserError, httpx.HTTPError):  # the check of the cluster says so
        return set()
    sources = [
        source
        for each in applications
        if str(each["spec"].get("project", "")).partition("-")[0] == "ratchet"
        for source in [each["spec"].get("source"), *each["spec"].get("sources", [])]
        if source and "chart" not in source
    ]
    return {source["repoURL"] for source in sources}


def metric_queries(site: Site) -> list[tuple[str, str, str]]:
    """Name, Prometheus' address and query of the Canary's metrics, asked about the primary's pods, which always run.

    Flagger fills in `{{ namespace }}`, `{{ target }}` and `{{ interval }}`.
    """
    if site.cluster_url is None:
        return []
    release = site.config.release_adapter
    with Api.of(site.cluster_url) as api:
        templates = api.items(f"/apis/flagger.app/v1beta1/namespaces/{release.namespace}/metrictemplates")
    words = {"namespace": release.namespace, "target": f"{release.canary}-primary", "interval": "5m"}
    found = []
    for each in templates:
        query = each["spec"]["query"]
        for name, value in words.items():
            query = query.replace(f"{{{{ {name} }}}}", value)
        found.append((each["metadata"]["name"], each["spec"]["provider"]["address"], query))
    return found


def _may_get(api: Api, user: str, namespace: str, group: str, kind: str) -> bool:
    asked = {"namespace": namespace, "verb": "get", "group": group, "resource": kind}
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {"user": user, "resourceAttributes": asked},
    }
    answer = api.ask("/apis/authorization.k8s.io/v1/subjectaccessreviews", review) or {}
    return bool(answer.get("status", {}).get("allowed"))


def _is_vllm(container: Object) -> bool:
    return [*container.get("command", []), *container.get("args", [])][:2] == ["vllm", "serve"]


def _flag(words: Sequence[str], name: str) -> str | None:
    """The value of -name=VALUE, --name=VALUE or --name VALUE."""
    for word, following in zip(words, [*words[1:], ""], strict=True):
        key, has_value, value = word.lstrip("-").partition("=")
        if word.startswith("-") and key == name:
            return value if has_value else following
    return None


def _numbers(version: str) -> tuple[int, ...]:
    """`v1.31+` as (1, 31): as many leading parts as are numbers."""
    parts = ("".join(sign for sign in part if sign.isdigit()) for part in version.split("."))
    return tuple(int(part) for part in parts if part)
