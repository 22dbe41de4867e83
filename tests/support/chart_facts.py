"""What other people's charts make of our values, recorded so that tests have them without the charts.

The charts are not in this repository, and tests do not fetch. So a person who changes values that a chart reads, or
moves to another version of it, records anew and reviews the difference:

    helm pull airflow --repo https://airflow.apache.org --version 1.22.0 --untar --untardir charts-of-others
    PYTHONPATH=components:pipelines:tests python -m support.chart_facts charts-of-others airflow

Recorded are: keys of the chart's values (all below the ones that we set; of the others their names), what it renders
with our values (pods with their commands and probes, kinds, services), and where it was read.
"""

import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from support import argocd_tree, pod_security

FACTS = Path(__file__).parents[1] / "infra" / "facts"
FREE = "free"  # a map or a list of the user's own, or one that the chart hands to Kubernetes as it is
NAMED = "named"  # a key that we set nothing under
SELECTORS = ("podMonitorSelector", "ruleSelector")
PROBES = ("startupProbe", "livenessProbe", "readinessProbe")
Plain = dict[str, Any]


def read(chart: str) -> Plain:
    """The record of one chart."""
    facts: Plain = yaml.safe_load((FACTS / f"{chart}.yaml").read_text())
    return facts


def shape(values: Any) -> str:
    """A digest of the values' keys and switches. Strings and numbers may change without another rendering."""
    return hashlib.sha256(json.dumps(_skeleton(values), sort_keys=True).encode()).hexdigest()


def _skeleton(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _skeleton(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_skeleton(each) for each in value]
    return value if isinstance(value, bool) or value is None else type(value).__name__


def rendered(folder: Path, values: Plain, release: str, namespace: str) -> Plain:
    """What the chart makes: of each thing, what our images, projects and addresses must agree with."""
    made, again = (argocd_tree.helm(folder, values, release, namespace) for _ in range(2))
    if (folder / "crds").is_dir():  # Helm's render leaves them out, Argo CD does not
        made += argocd_tree.load(folder / "crds")
    pods = {f"{each['kind']}/{each['metadata']['name']}": pod(template) for each, template in with_pods(made)}
    return {
        "kinds": sorted({f"{each['apiVersion'].rpartition('/')[0]}/{each['kind']}" for each in made}),
        "pods": dict(sorted(pods.items())),
        "services": {
            f"{each['metadata']['name']}.{each['metadata'].get('namespace', namespace)}": [
                port["port"] for port in each["spec"]["ports"]
            ]
            for each in made
            if each["kind"] == "Service"
        },
        "secrets made": sorted(each["metadata"]["name"] for each in made if each["kind"] == "Secret"),
        "same again": made[: len(again)] == again,
        "selectors": {  # by which a Prometheus chooses what to read
            key: selector["matchLabels"]
            for each in made
            if each["kind"] == "Prometheus"
            for key, selector in each["spec"].items()
            if key in SELECTORS
        },
    }


def with_pods(objects: list[Plain]) -> Iterator[tuple[Plain, Plain]]:
    """Objects that start pods, with the pods' template."""
    for each in objects:
        spec = each.get("spec", {})
        template = spec.get("jobTemplate", {}).get("spec", spec).get("template") if isinstance(spec, dict) else None
        if isinstance(template, dict) and "spec" in template:
            yield each, template


def pod(template: Plain) -> Plain:
    spec = template["spec"]
    return {
        "service account": spec.get("serviceAccountName", "default"),
        "refused by restricted": pod_security.violations(spec),
        "claims": [each["name"] for each in spec.get("volumes") or () if "persistentVolumeClaim" in each],
        "containers": {
            each["name"]: container(each) for each in (*(spec.get("initContainers") or ()), *spec["containers"])
        },
        "secrets": sorted(set(_secret_keys(template))),
    }


def container(spec: Plain) -> Plain:
    """Image without version, what is run, and what is run to see whether it is well."""
    commands = {"run": [*(spec.get("command") or ()), *(spec.get("args") or ())]}
    for probe in PROBES:
        if "exec" in (spec.get(probe) or {}):
            commands[probe] = spec[probe]["exec"]["command"]
    return {
        "image": str(spec["image"]).partition("@")[0].rpartition(":")[0] or str(spec["image"]).partition("@")[0],
        "entrypoint": "named" if spec.get("command") else "the image's",
        "commands": commands,
        "requests": sorted((spec.get("resources") or {}).get("requests") or {}),
    }


def _secret_keys(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(reference := value.get("secretKeyRef"), dict):
            yield f"{reference['name']}/{reference['key']}"
        for each in value.values():
            yield from _secret_keys(each)
    elif isinstance(value, list):
        for each in value:
            yield from _secret_keys(each)


def keys(folder: Path, ours: Plain) -> Plain:
    """The chart's keys with the types that they may have, whole below the keys that we set."""
    defaults = yaml.safe_load((folder / "values.yaml").read_text())
    schema = folder / "values.schema.json"
    properties = json.loads(schema.read_text())["properties"] if schema.exists() else {}
    found = {}
    for key, default in defaults.items():
        found[key] = _types(default, properties.get(key, {})) if key in ours else NAMED
    return found


def _types(default: Any, schema: Plain) -> Any:
    if isinstance(default, dict) and default:
        inner = schema.get("properties", {})
        return {key: _types(value, inner.get(key, {})) for key, value in default.items()}
    if "enum" in schema:
        return schema["enum"]
    said = schema.get("type")
    types = [said] if isinstance(said, str) else list(said or ())
    if {"object", "array"} & set(types) or isinstance(default, dict | list):
        return FREE
    return "|".join(types) or _json_type(default)


def _json_type(value: Any) -> str:
    names = {bool: "boolean", int: "integer", float: "number", str: "string", type(None): "any"}
    return names[type(value)]


def record(charts: Path, name: str) -> None:
    """Write the facts of one chart, as it is in `charts`, keeping what a person wrote about where it was read."""
    folder, path = charts / name, FACTS / f"{name}.yaml"
    about = yaml.safe_load((folder / "Chart.yaml").read_text())
    given = argocd_tree.upstream(name)
    facts = read(name) if path.exists() else {"source": {}}
    made = rendered(folder, given.values, given.release, given.namespace)
    facts |= {"chart": name, "version": str(about["version"]), "release": given.release, "namespace": given.namespace}
    if given is argocd_tree.PROMETHEUS:  # not installed by us: only where it is and what it selects matter
        facts["rendered"] = {key: made[key] for key in ("services", "selectors")}
    else:
        facts |= {"values": shape(given.values), "keys": keys(folder, given.values), "rendered": made}
    path.write_text(yaml.safe_dump(facts, sort_keys=False, width=120, allow_unicode=True))


if __name__ == "__main__":
    record(Path(sys.argv[1]), sys.argv[2])
