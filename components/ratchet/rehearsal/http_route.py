"""The HTTPRoute that Flagger makes of a Canary: its spec, its weights, and whether the gateway accepts it. Pure."""

import copy
from typing import Any

from ratchet.rehearsal.canary_spec import TOTAL_WEIGHT

Object = dict[str, Any]


def route_spec(canary: Object, primary: int, weight: int) -> Object:
    """Return the route's spec for these weights, as the Canary's `service` has it."""
    service, name = canary["spec"].get("service", {}), apex_name(canary)
    backends = [
        {"group": "", "kind": "Service", "name": backend, "port": service.get("port", 80), "weight": share}
        for backend, share in ((f"{name}-primary", primary), (f"{name}-canary", weight))
    ]
    rule: Object = {"matches": [{"path": {"type": "PathPrefix", "value": "/"}}], "backendRefs": backends}
    if timeout := service.get("timeout"):
        rule["timeouts"] = {"request": timeout}
    return {"parentRefs": service.get("gatewayRefs", []), "hostnames": service.get("hosts", []), "rules": [rule]}


def apex_name(canary: Object) -> str:
    """Return the name of the Service and the route that users come by."""
    return str(canary["spec"].get("service", {}).get("name") or canary["spec"]["targetRef"]["name"])


def weights(route: Object) -> tuple[int, int]:
    """Return the primary's and the canary's weight in an HTTPRoute of Flagger's."""
    primary, canary = route["spec"]["rules"][0]["backendRefs"]
    return primary["weight"], canary["weight"]


def differs(route: Object, canary: Object) -> bool:
    """Return whether the route is another than the Canary asks for, weights aside."""
    wanted = copy.deepcopy(route_spec(canary, *weights(route)))
    return bool(route["spec"] != wanted)


def refusal(route: Object) -> str:
    """Return why the route cannot be gone by: a parent has not accepted this generation of it. Empty if all have.

    A parent that has said nothing yet counts as one that accepts.
    """
    generation = route["metadata"]["generation"]
    for parent in route.get("status", {}).get("parents", []):
        for condition in parent["conditions"]:
            is_met = condition["status"] == "True" and condition["observedGeneration"] >= generation
            if condition["type"] == "Accepted" and parent["parentRef"] in route["spec"]["parentRefs"] and not is_met:
                return f"HTTPRoute {route['metadata']['name']} parent {parent['parentRef']['name']} is not ready"
    return ""


def gateway_status(route: Object, is_accepted: bool) -> Object:
    """Return the status that a gateway writes once it has seen the route as it is."""
    condition = {
        "type": "Accepted",
        "status": str(is_accepted),
        "observedGeneration": route["metadata"]["generation"],
    }
    return {"parents": [{"parentRef": ref, "conditions": [condition]} for ref in route["spec"]["parentRefs"]]}


def whole(weight: int) -> tuple[int, int]:
    return TOTAL_WEIGHT - weight, weight
