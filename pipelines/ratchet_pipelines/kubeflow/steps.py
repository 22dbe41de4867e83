"""Run one step in a component's pod: read the manifests of its inputs, run it, draw the UI's artifacts."""

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, NamedTuple

from ratchet.config import Config, load_config
from ratchet.errors import UserError
from ratchet.manifest import Manifest
from ratchet.step import StepResult, read_manifest, run_step
from ratchet.store import Store, open_store
from ratchet_pipelines.console import announce, guarded
from ratchet_pipelines.graph import BY_NAME
from ratchet_pipelines.kubeflow.drawing import draw
from ratchet_pipelines.profiles import profile_path

if TYPE_CHECKING:
    from kfp.dsl import Artifact


class Done(NamedTuple):
    """A component's output parameters."""

    manifest: str
    """Reference to the step's manifest: `URI@DIGEST`, so that Kubeflow's cache sees the content and not the name."""
    may_release: bool


def run(step: str, lake: str, config: str, inputs: Mapping[str, str], **artifacts: "Artifact") -> Done:
    """Run a step and fill in its artifacts. A user's error is the last line of the log, and exit code 2."""
    done: list[Done] = []
    guarded(lambda: done.append(_run(step, lake, config, inputs, artifacts)))
    return done[0]


def _run(name: str, lake: str, config: str, inputs: Mapping[str, str], artifacts: Mapping[str, "Artifact"]) -> Done:
    store, step = open_store(lake), BY_NAME[name]
    given = {source: dereference(store, source, reference) for source, reference in inputs.items()}
    ran = run_step(step, settings(config), given, store)
    announce(step, ran)
    draw(ran.manifest, store, artifacts)
    return Done(reference(ran), may_release(ran.manifest))


def reference(ran: StepResult) -> str:
    return f"{ran.manifest.uri}@{ran.manifest.digest}"


def dereference(store: Store, step: str, reference: str) -> Manifest:
    """The manifest of `step` at `URI` or `URI@DIGEST`; raises UserError if it is another one."""
    uri, _, digest = reference.partition("@")
    manifest = read_manifest(store, uri)
    if manifest.step != step:
        raise UserError(f"{step} = {reference}: that is a manifest of {manifest.step}; give one of {step}")
    if digest and manifest.digest != digest:
        raise UserError(f"{step} = {reference}: the digest there is {manifest.digest}; is {store.root} the right lake?")
    return manifest


def settings(config: str) -> Config:
    """The configuration: a profile by its name, or the text of a whole ratchet.yaml."""
    if ":" not in config:
        return load_config(profile_path(config))
    with TemporaryDirectory() as folder:
        file = Path(folder) / "ratchet.yaml"
        file.write_text(config, encoding="utf-8")
        return load_config(file)


def may_release(manifest: Manifest) -> bool:
    """Whether a release may follow: the offline verdict is a pass, or `release_adapter.force` overrules it."""
    return manifest.facts.get("verdict") == "pass" or bool(manifest.facts.get("is_forced"))
