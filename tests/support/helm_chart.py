"""What the charts' tests share: rendering by Helm itself, golden files, and validity by the schemas of their makers.

Strictly: fields that a schema does not name are refused.
"""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import kubernetes_validate
import yaml

from ratchet.rehearsal.argo import render
from support import crd_schemas

CHARTS = Path(__file__).resolve().parents[2] / "charts"
KUBERNETES = "1.31"
PROJECTS = {"flagger.app": "flagger", "monitoring.coreos.com": "prometheus-operator"}
Objects = dict[tuple[str, str], dict[str, Any]]


class Chart:
    """One of our charts."""

    def __init__(self, name: str) -> None:
        self.folder = CHARTS / name
        self._golden = Path(__file__).parents[1] / "charts" / f"{name}.golden.yaml"

    def render(self, **values: Any) -> list[dict[str, Any]]:
        return render(self.folder, values, "ratchet")

    def objects(self, **values: Any) -> Objects:
        """By kind and name."""
        return {(each["kind"], each["metadata"]["name"]): each for each in self.render(**values)}

    def kinds(self, **values: Any) -> dict[str, dict[str, Any]]:
        """By kind, for a chart that makes one of each."""
        return {each["kind"]: each for each in self.render(**values)}

    def values(self, file: str = "values.yaml") -> dict[str, Any]:
        """A values file beside the chart."""
        found: dict[str, Any] = yaml.safe_load((self.folder / file).read_text())
        return found

    def check_golden(self, *, regenerate: bool = os.environ.get("REGENERATE_GOLDEN") == "1") -> None:
        """The default rendering is the golden file, which is written anew if that is asked for."""
        made = self.render()
        if regenerate:
            self._golden.write_text(yaml.safe_dump_all(made, sort_keys=True, width=120))
        golden = list(yaml.safe_load_all(self._golden.read_text()))
        assert made == golden, "run `make golden` and review the difference"


def check_valid(manifests: Iterable[dict[str, Any]]) -> None:
    """Every object, by Kubernetes' own schema or by its CRD's."""
    for manifest in manifests:
        project = PROJECTS.get(manifest["apiVersion"].partition("/")[0])
        if project:
            crd_schemas.check(manifest, project)
        else:
            kubernetes_validate.validate(manifest, KUBERNETES, strict=True)


def check_unprivileged(pod: dict[str, Any]) -> None:
    """No container of the pod, no init container either, runs as root, gains rights, or writes outside its volumes."""
    assert pod["securityContext"]["runAsNonRoot"] is True
    for container in (*pod["containers"], *pod.get("initContainers", ())):
        context = container["securityContext"]
        assert context["readOnlyRootFilesystem"] is True
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
