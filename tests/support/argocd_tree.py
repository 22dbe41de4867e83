"""What an environment's root.yaml brings, followed as Argo CD does: Applications, their sources, values, objects."""

import shutil
import subprocess
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import helm_python
import pytest
import yaml

from ratchet.rehearsal.argo import merge

ROOT = Path(__file__).resolve().parents[2]
ARGOCD = ROOT / "infra" / "argocd"
ENVIRONMENTS = ("staging", "production")
SEED = ARGOCD / "adapter.yaml"  # what the adapters' repository begins with
Plain = dict[str, Any]
Objects = list[Plain]


def load(path: Path) -> Objects:
    """Every document of a file, or of each YAML file of a folder."""
    files = sorted(path.glob("*.yaml")) if path.is_dir() else [path]
    found = [document for file in files for document in yaml.safe_load_all(file.read_text())]
    return [each for each in found if each and each.get("kind") != "Kustomization"]


def helm(folder: Path, values: Plain, release: str, namespace: str) -> Objects:
    """A chart's objects, rendered by Helm itself."""
    with helm_python.Chart.load(folder) as chart:
        files = chart.render(values, name=release, namespace=namespace)
    texts = [text for name, text in sorted(files.items()) if not name.endswith("NOTES.txt")]
    return [each for text in texts for each in yaml.safe_load_all(text) if each]


def by_hand(environment: str) -> Objects:
    """What a person applies: the projects, and the root."""
    files = (ARGOCD / "projects.yaml", ARGOCD / environment / "project.yaml", ARGOCD / environment / "root.yaml")
    return [each for file in files for each in load(file)]


def root(environment: str) -> Plain:
    return next(each for each in by_hand(environment) if each["kind"] == "Application")


def projects(environment: str) -> dict[str, Plain]:
    return {each["metadata"]["name"]: each["spec"] for each in by_hand(environment) if each["kind"] == "AppProject"}


@cache
def applications(environment: str) -> dict[str, Plain]:
    """What the root brings."""
    (made,) = [Source(root(environment), place) for place in sources(root(environment))]
    return {each["metadata"]["name"]: each for each in made.objects()}


def sources(application: Plain) -> Objects:
    spec = application["spec"]
    return list(spec["sources"] if "sources" in spec else [spec["source"]])


def source(environment: str, name: str) -> "Source":
    """The source of an Application that has manifests: a chart or a folder; the first, where there are two."""
    application = applications(environment)[name]
    return Source(application, sources(application)[0])


@dataclass
class Source:
    """One source of an Application."""

    application: Plain
    place: Plain

    @property
    def folder(self) -> Path:
        return ROOT / self.place["path"]

    @property
    def is_ours(self) -> bool:
        return "path" in self.place

    def files(self) -> list[Path]:
        """Values files, in the order in which Helm reads them."""
        named = {f"${each['ref']}": each for each in sources(self.application) if "ref" in each}
        found = []
        for name in self.place.get("helm", {}).get("valueFiles", []):
            reference, _, path = name.partition("/")
            if reference in named:
                found.append(ROOT / path if is_this_repository(self.application, named[reference]) else SEED)
            else:
                found.append((self.folder / name).resolve())
        return found

    def values(self) -> Plain:
        """The values, as Argo CD layers them over the chart's own."""
        layers = [yaml.safe_load(file.read_text()) for file in self.files()]
        own = yaml.safe_load((self.folder / "values.yaml").read_text()) if self.is_ours else {}
        return merge(own, *layers, self.place.get("helm", {}).get("valuesObject", {}))

    def objects(self, **more: Any) -> Objects:
        """What this source applies. For other people's charts: nothing; see chart_facts."""
        namespace = self.application["spec"]["destination"]["namespace"]
        if not self.is_ours:
            return []
        if (self.folder / "Chart.yaml").exists():
            release = self.place["helm"].get("releaseName", self.application["metadata"]["name"])
            return helm(self.folder, merge(self.values(), more), release, namespace)
        if "directory" in self.place:
            return load(self.folder / self.place["directory"]["include"])
        return kustomized(self.folder)


def is_this_repository(application: Plain, place: Plain) -> bool:
    """Whether a source is the repository of charts and values, where all but one are."""
    own = [each["repoURL"] for each in sources(application) if "path" in each]
    return place["repoURL"] in own


def kustomized(folder: Path) -> Objects:
    """A folder, built by Kustomize itself."""
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed; it holds kustomize")
    built = subprocess.run(["kubectl", "kustomize", str(folder)], capture_output=True, text=True, check=True).stdout
    return [each for each in yaml.safe_load_all(built) if each]


@dataclass(frozen=True)
class Upstream:
    """How another's chart is installed here."""

    version: str
    release: str
    namespace: str
    values: Plain = field(default_factory=dict)


# Not an Application of ours: a cluster has one already, or docs/argo.md's line installs it. Its own dependencies are
# off, since a checkout of the chart does not hold them; nothing here reads them.
PROMETHEUS = Upstream(
    version="88.5.3",
    release="kube-prometheus-stack",
    namespace="monitoring",
    values={"grafana": {"enabled": False}, "nodeExporter": {"enabled": False}, "kubeStateMetrics": {"enabled": False}},
)


def upstream(chart: str, environment: str = "production") -> Upstream:
    """Another's chart with our values."""
    if chart == "kube-prometheus-stack":
        return PROMETHEUS
    found = source(environment, chart)
    return Upstream(
        version=found.place["targetRevision"],
        release=found.place["helm"]["releaseName"],
        namespace=found.application["spec"]["destination"]["namespace"],
        values=found.values(),
    )
