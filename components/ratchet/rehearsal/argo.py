"""A small model of Argo CD: follow a branch, render the chart with its values file, apply the result in waves.

Like an Application with values files and parameters: chart defaults, then the overlay in the chart, then the file in
Git, then parameters. As in Argo CD a wave waits for the health of the one before it, and meanwhile no other commit is
synced: so the Deployment changes before the Canary does. Left out: self-healing and pruning.
"""

import functools
import subprocess
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ratchet.errors import UserError
from ratchet.rehearsal.cluster import Cluster, Object
from ratchet.rehearsal.flagger import Readiness
from ratchet.rehearsal.workloads import readiness

OVERLAY = "values-local.yaml"
# In Argo CD's order.
APPLIED = ("Secret", "ConfigMap", "Deployment", "HorizontalPodAutoscaler", "MetricTemplate", "Canary")
WAVE = "argocd.argoproj.io/sync-wave"
GIT_TIMEOUT_S = 60.0


@dataclass
class Argo:
    """One Application: a branch of a repository, a values file in it, a chart."""

    cluster: Cluster
    git_url: str
    branch: str
    values_path: str
    chart: Path
    clone: Path
    parameters: Mapping[str, Any] = field(default_factory=dict)
    synced: str = ""
    """The last commit that was read, applied or refused."""
    waves: list[list[Object]] = field(default_factory=list)
    """Of the sync under way: what is still to be applied."""
    applied: list[str] = field(default_factory=list)
    """Of the sync under way: the Deployments that were."""
    last_log: str = ""

    def run(self, stop: threading.Event, poll_s: float) -> None:
        while not stop.wait(poll_s):
            try:
                self.sync()
            except UserError as error:  # what runs stays as it is until Git is fixed
                self._log_once(f"not synced: {error}")

    def sync(self) -> None:
        """Begin to apply the branch's head if it is new, or go on with the sync under way.

        Raises UserError if Git or the values are unusable.
        """
        if not self.waves:
            self._begin()
        while self.waves and self._is_healthy():
            for manifest in self.waves.pop(0):
                self.cluster.apply(manifest)
                self.applied += [manifest["metadata"]["name"]] if manifest["kind"] == "Deployment" else []
            if not self.waves:
                self._log_once(f"synced {self.synced[:10]}")

    def _begin(self) -> None:
        if not self.clone.exists():
            self._git("init", "--bare", "--quiet", str(self.clone))
        self._git("-C", str(self.clone), "fetch", "--quiet", self.git_url, f"refs/heads/{self.branch}")
        commit = self._git("-C", str(self.clone), "rev-parse", "FETCH_HEAD").strip()
        if commit == self.synced:
            return
        self.synced = commit
        overlay = _mapping((self.chart / OVERLAY).read_text(encoding="utf-8"), OVERLAY)
        text = self._git("-C", str(self.clone), "show", f"{commit}:{self.values_path}")
        in_git = _mapping(text, f"{self.values_path} at {commit[:10]}")
        values = merge(overlay, in_git, self.parameters)
        self.waves, self.applied = in_waves(render(self.chart, values, self.cluster.namespace)), []

    def _is_healthy(self) -> bool:
        """Return whether the next wave may come. Ends the sync if a Deployment is past its deadline."""
        found = (self.cluster.get("Deployment", name) for name in self.applied)
        health = {deployment["metadata"]["name"]: readiness(deployment) for deployment in found if deployment}
        if late := [name for name, state in health.items() if state is Readiness.STUCK]:
            self.waves, self.synced = [], ""  # and the next look tries again
            self._log_once(f"not synced: Deployment {late[0]} is past its deadline")
        return all(state is Readiness.READY for state in health.values())

    def renders(self, kind: str, name: str) -> bool:
        """Return whether the cluster holds the object, or the sync under way is to bring it."""
        coming = [each for wave in self.waves for each in wave]
        is_coming = any((each["kind"], each["metadata"]["name"]) == (kind, name) for each in coming)
        return is_coming or self.cluster.get(kind, name) is not None

    def _git(self, *arguments: str) -> str:
        try:
            done = subprocess.run(["git", *arguments], capture_output=True, text=True, timeout=GIT_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise UserError(f"git gave no answer from {self.git_url} within {GIT_TIMEOUT_S:.0f} s") from None
        if done.returncode:
            raise UserError(
                f"{self.git_url}, branch {self.branch}, file {self.values_path}: {done.stderr.strip()}; "
                f"name a repository, branch and file that exist"
            )
        return done.stdout

    def _log_once(self, text: str) -> None:
        if text != self.last_log:
            self.last_log = text
            self.cluster.log("argo", text)


def render(chart: Path, values: Mapping[str, Any], namespace: str) -> list[Object]:
    """Return the chart's objects, rendered by Helm, offline. Raises UserError if the chart refuses the values."""
    import helm_python

    try:
        with helm_python.Chart.load(chart) as loaded:
            files = loaded.render(dict(values), name="adapter-router", namespace=namespace)
    except helm_python.HelmError as error:
        raise UserError(f"{chart} cannot be rendered: {error}") from None
    texts = [text for name, text in sorted(files.items()) if not name.endswith("NOTES.txt")]  # for people
    manifests = (manifest for text in texts for manifest in yaml.safe_load_all(text))
    return [manifest for manifest in manifests if manifest]


def in_waves(manifests: list[Object]) -> list[list[Object]]:
    """Return the objects in the order in which Argo CD applies them: by wave, then by kind, then by name."""
    waves: dict[int, list[Object]] = {}
    for manifest in manifests:
        if manifest["kind"] in APPLIED:
            wave = int(manifest["metadata"].get("annotations", {}).get(WAVE, 0))
            waves.setdefault(wave, []).append(manifest)
    by_kind = {kind: number for number, kind in enumerate(APPLIED)}
    return [
        sorted(waves[wave], key=lambda each: (by_kind[each["kind"]], each["metadata"]["name"]))
        for wave in sorted(waves)
    ]


def merge(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Merge layers of values as Helm does: maps merge, everything else is replaced by the later layer."""
    return functools.reduce(_merge_two, layers, {})


def _merge_two(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        is_map = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merge_two(merged[key], value) if is_map else value
    return merged


def _mapping(text: str, place: str) -> dict[str, Any]:
    try:
        plain = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise UserError(f"{place} is not YAML: {error}") from None
    if not isinstance(plain, dict):
        raise UserError(f"{place} holds a {type(plain).__name__}; it must be a mapping of values")
    return plain
