"""Objects held against the CRD schemas beside the checkout.

Strictly: an API server prunes fields that a schema does not name, silently; here they are refused.
"""

from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

CRDS = Path(__file__).resolve().parents[3] / "shared" / "crds"


def check(document: dict[str, Any], project: str) -> None:
    """Raises jsonschema.ValidationError for an object that its CRD refuses; skips where there are no schemas."""
    for error in _validator(project, document["kind"]).iter_errors(document):
        raise error


@cache
def _validator(project: str, kind: str) -> Any:
    if not CRDS.is_dir():
        pytest.skip(f"no CRD schemas beside the checkout: {CRDS} is absent")
    schema = _crd(project, kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    schema["properties"]["metadata"] = {"type": "object"}
    # Not jsonschema.validate, which judges the schema itself first: 20 s for one of Argo's.
    return jsonschema.Draft202012Validator(strict(schema) | {"required": ["apiVersion", "kind", "metadata", "spec"]})


def _crd(project: str, kind: str) -> Any:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    for path in sorted((CRDS / project).glob("*.yaml")):
        text = path.read_text(encoding="utf-8")
        if f"kind: {kind}\n" in text:
            return next(crd for crd in yaml.load_all(text, loader) if crd and crd["spec"]["names"]["kind"] == kind)
    raise LookupError(f"{CRDS / project} has no CRD for {kind}")


def strict(schema: Any) -> Any:
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: strict(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and not schema.get("x-kubernetes-preserve-unknown-fields"):
        made.setdefault("additionalProperties", False)
    return made
