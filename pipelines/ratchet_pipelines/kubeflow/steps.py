"""Run one step in a component's pod: read the manifests of its inputs, run it, draw the UI's artifacts."""

import re
import time
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, NamedTuple

from ratchet.config import Config, check_config, load_config, read_settings
from ratchet.digest import digest_bytes
from ratchet.errors import UserError
from ratchet.manifest import Manifest
from ratchet.release.approval import approve as record_approval
from ratchet.release.approval import read_registered
from ratchet.release.ledger import Ledger, read_ledger
from ratchet.step import StepResult, read_manifest, run_step
from ratchet.store import Store, open_lake, open_store
from ratchet_pipelines.console import announce, guarded, say
from ratchet_pipelines.graph import BY_NAME
from ratchet_pipelines.kubeflow.drawing import draw
from ratchet_pipelines.profiles import profile_names, profile_path

if TYPE_CHECKING:
    from kfp.dsl import Artifact


REFERENCE = re.compile(r"\S+@[0-9a-f]{64}")
SHOWN_CHARS = 80


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
    """The configuration: a profile's name, URI@DIGEST of a ratchet.yaml, or its text, as YAML or as JSON.

    Kubeflow's form has one line for a text, and browsers drop the ends of lines from what is pasted: YAML becomes a
    comment, or something else. So a text on one line has to be JSON. Raises UserError for that, and for no settings.
    """
    text = config.strip()
    if REFERENCE.fullmatch(text):
        text = _fetch(text)
    elif text in profile_names():
        return load_config(profile_path(text))
    elif not text.startswith("{") and "\n" not in text:
        raise UserError(
            f"config = {_beginning(text)!r}: neither a profile ({', '.join(profile_names())}), nor URI@DIGEST, nor "
            "JSON, nor YAML of more than one line. A form drops the line ends of a YAML that is pasted: give what "
            "`ratchet config publish` prints for your ratchet.yaml, or its JSON (`ratchet config json`)"
        )
    with TemporaryDirectory() as folder:
        file = Path(folder) / "ratchet.yaml"
        file.write_text(text, encoding="utf-8")
        given = read_settings(file)
        if not given:
            raise UserError(f"config = {_beginning(text)!r}: holds no setting; name a profile for the defaults")
        return check_config(file, given)


def _fetch(reference: str) -> str:
    """The text at URI@DIGEST. Raises UserError if there is another one."""
    uri, _, digest = reference.rpartition("@")
    folder, _, name = uri.rpartition("/")
    if not folder:
        raise UserError(f"config = {reference}: write the whole URI, as s3://bucket/configs/NAME.yaml@DIGEST")
    data = open_lake(folder).read(name)
    if (found := digest_bytes(data)) != digest:
        raise UserError(f"config = {reference}: the digest there is {found}; publish the file again, or give that one")
    return data.decode()


def _beginning(text: str) -> str:
    return text if len(text) <= SHOWN_CHARS else f"{text[:SHOWN_CHARS]}…"


def approve(lake: str, register_adapter: str, who: str, why: str) -> None:
    """Write a person's yes to the next release of an adapter into the ledger, unless the form names nobody."""
    if who.strip():
        guarded(lambda: _approve(open_store(lake), register_adapter, who, why))


def _approve(store: Store, register_adapter: str, who: str, why: str) -> None:
    manifest = dereference(store, "register_adapter", register_adapter)
    registered = read_registered(store, manifest.outputs["version"].uri)
    # Kubeflow runs this again with each retry of the step: the same words are the same yes, and not another one.
    digest = registered.adapter.digest
    said = [each for each in read_ledger(store) if each.event == "approved" and each.adapter.digest == digest]
    if any((each.who, each.why, each.verdict) == (who, why, registered.verdict) for each in said):
        return
    record = record_approval(Ledger(store), registered, who, time.time(), why)
    say.print(f"approved by {record.who}: {record.why}", markup=False)


def may_release(manifest: Manifest) -> bool:
    """Whether a release may follow: the offline verdict is a pass, or `release_adapter.force` overrules it."""
    return manifest.facts.get("verdict") == "pass" or bool(manifest.facts.get("is_forced"))
