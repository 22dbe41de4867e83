"""The Canary, and the way of its webhooks from Flagger's pod to the gate: name, Service, pods, policies, token."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from ratchet.release.gate.tokens import METADATA_KEY, VARIABLE, hook_token
from ratchet_pipelines.doctor.findings import Finding, Site
from ratchet_pipelines.doctor.kubernetes import Api, Object, containers_of, find_flagger


def check_canary(site: Site) -> Iterator[Finding]:
    """The Canary, and each webhook's way from Flagger's namespace to the gate, with the token that the gate knows."""
    if site.cluster_url is None:
        return
    release = site.config.release_adapter
    path = f"/apis/flagger.app/v1beta1/namespaces/{release.namespace}/canaries/{release.canary}"
    with Api.of(site.cluster_url) as api:
        canary = api.get(path)
        if canary is None:
            do = "deploy charts/adapter-router, or name it: release_adapter.namespace and .canary"
            what = f"no Canary {release.canary} in {release.namespace}"
            yield Finding(check="canary", state="missing", what=what, do=do)
            return
        phase = canary.get("status", {}).get("phase", "not begun")
        yield Finding(check="canary", state="ok", what=f"{release.canary} in {release.namespace}: {phase}")
        analysis = canary["spec"].get("analysis", {})
        if not analysis.get("metrics"):
            what = "Flagger watches no errors and no latency: a canary that answers 500 is only held"
            do = "set prometheus.address of charts/adapter-router, and podMonitor with it"
            yield Finding(check="canary.metrics", state="warning", what=what, do=do)
        hooks = analysis.get("webhooks", [])
        flagger = find_flagger(api)
        for origin in sorted({f"{urlsplit(hook['url']).scheme}://{urlsplit(hook['url']).netloc}" for hook in hooks}):
            yield from _way(api, origin, flagger)
    yield from _hook_tokens(hooks)


def _way(api: Api, origin: str, flagger: Object | None) -> Iterator[Finding]:
    """Whether Flagger's pod reaches what stands behind a webhook's address."""
    sender = flagger["metadata"]["namespace"] if flagger else None
    parts = urlsplit(origin)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    name, _, rest = host.partition(".")
    namespace = rest.partition(".")[0]
    if not namespace:
        do = (
            f"write {name}.NAMESPACE.svc: Flagger asks from {sender or 'its own namespace'}, where that name is nothing"
        )
        yield Finding(check="gate.address", state="missing", what=f"webhooks call {origin}, without namespace", do=do)
        return
    service = api.get(f"/api/v1/namespaces/{namespace}/services/{name}")
    if service is None or port not in [each["port"] for each in service["spec"].get("ports", [])]:
        what = f"webhooks call {origin}: {'no such Service' if service is None else f'the Service has no port {port}'}"
        do = "deploy charts/release-services there, or set gate.url of charts/adapter-router"
        yield Finding(check="gate.address", state="missing", what=what, do=do)
        return
    slices = api.items(
        f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices",
        labelSelector=f"kubernetes.io/service-name={name}",
    )
    if not any(each.get("conditions", {}).get("ready") for part in slices for each in part.get("endpoints") or []):
        what, do = f"no pod behind {origin} is ready", f"kubectl -n {namespace} logs deploy/{name}"
        yield Finding(check="gate.ready", state="missing", what=what, do=do)
    if flagger is None:
        return
    caller = Caller(
        namespace=(api.get(f"/api/v1/namespaces/{sender}") or {}).get("metadata", {}).get("labels") or {},
        pod=flagger["spec"]["template"].get("metadata", {}).get("labels") or {},
        is_inside=sender == namespace,
        ports=_ports(api, namespace, service, port),
    )
    policies = api.items(f"/apis/networking.k8s.io/v1/namespaces/{namespace}/networkpolicies")
    governing = [each for each in policies if _selects(each, service["spec"].get("selector", {}))]
    shut = [each["metadata"]["name"] for each in governing]
    if shut and not any(_admits(each, caller) for each in governing):
        what = f"NetworkPolicy {', '.join(shut)} of {namespace} admits no pod of {sender}, where Flagger is"
        do = f"add {sender} to gate.allowedNamespaces of charts/release-services"
        yield Finding(check="gate.policy", state="missing", what=what, do=do)
    else:
        yield Finding(check="gate.address", state="ok", what=f"{origin} is open to {sender}")


def _hook_tokens(hooks: Sequence[Object]) -> Iterator[Finding]:
    shown = {(hook.get("metadata") or {}).get(METADATA_KEY, "") for hook in hooks}
    token = os.environ.get(VARIABLE)
    if not token:
        do = f"export {VARIABLE} as the Secret ratchet-gate has it, and this compares them"
        yield Finding(check="gate.token", state="unchecked", what=f"{VARIABLE} is not set here", do=do)
    elif shown != {hook_token(token)}:
        do = "set gate.token of charts/adapter-router to what `ratchet hook-token` prints"
        what = "the webhooks carry another token than the gate's, which will refuse them"
        yield Finding(check="gate.token", state="missing", what=what, do=do)
    else:
        yield Finding(check="gate.token", state="ok", what="the webhooks carry the gate's token")


def _selects(policy: Object, labels: Mapping[str, str]) -> bool:
    """Whether the policy governs who may call pods of these labels."""
    types = policy["spec"].get("policyTypes", ["Ingress"])
    return "Ingress" in types and _matches(policy["spec"].get("podSelector") or {}, labels)


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Who calls, in the words of a NetworkPolicy: labels of namespace and pod, and the port by number and by name."""

    namespace: Mapping[str, str]
    pod: Mapping[str, str]
    is_inside: bool
    """Whether it is in the policy's own namespace, which a peer without namespaceSelector means."""
    ports: set[Any]


def _ports(api: Api, namespace: str, service: Object, port: int) -> set[Any]:
    """The port of the pods behind a Service's port, by number and by name."""
    target = next(each.get("targetPort", port) for each in service["spec"]["ports"] if each["port"] == port)
    deployments = api.items(f"/apis/apps/v1/namespaces/{namespace}/deployments")
    selector = service["spec"].get("selector", {})
    declared = [
        each
        for deployment in deployments
        if selector.items() <= deployment["spec"]["template"]["metadata"].get("labels", {}).items()
        for container in containers_of(deployment)
        for each in container.get("ports", [])
    ]
    numbers = {each["containerPort"] for each in declared if each.get("name") == target}
    names = {each["name"] for each in declared if each["containerPort"] == target and "name" in each}
    return {target, *numbers, *names}


def _admits(policy: Object, caller: Caller) -> bool:
    """Whether a rule of the policy lets the caller in, at its port."""
    for rule in policy["spec"].get("ingress") or []:
        ports = rule.get("ports") or []
        if ports and not any(each.get("port") is None or each["port"] in caller.ports for each in ports):
            continue
        if not rule.get("from") or any(_is_meant(peer, caller) for peer in rule["from"]):
            return True
    return False


def _is_meant(peer: Object, caller: Caller) -> bool:
    if "ipBlock" in peer:
        return False
    of_namespace = peer.get("namespaceSelector")
    is_near = caller.is_inside if of_namespace is None else _matches(of_namespace, caller.namespace)
    return is_near and _matches(peer.get("podSelector") or {}, caller.pod)


def _matches(selector: Object, labels: Mapping[str, str]) -> bool:
    """Whether a label selector takes these labels; an empty one takes all."""
    checks = {
        "In": lambda key, values: labels.get(key) in values,
        "NotIn": lambda key, values: labels.get(key) not in values,
        "Exists": lambda key, values: key in labels,
        "DoesNotExist": lambda key, values: key not in labels,
    }
    return (selector.get("matchLabels") or {}).items() <= labels.items() and all(
        checks[each["operator"]](each["key"], each.get("values") or [])
        for each in selector.get("matchExpressions") or []
    )
