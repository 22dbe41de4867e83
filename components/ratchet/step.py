"""Run a step once: find its manifest, or do the work and publish the manifest last, create-only."""

import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field

from ratchet import __version__
from ratchet.config import Config
from ratchet.errors import Conflict, UserError
from ratchet.lease import exclusive
from ratchet.manifest import Manifest, StepOutput, manifest_uri, step_key
from ratchet.needs import Needs
from ratchet.store import Store

Inputs = Mapping[str, Manifest]


@dataclass(frozen=True, kw_only=True)
class Step:
    """One of the seven steps: a name, what it reads, and the function that does it.

    Each step's module ends with `STEP = Step(...)`. Importing that module must stay cheap: heavy libraries are
    imported inside the functions that use them.
    """

    name: str
    run: Callable[[Config, Inputs, Store], StepOutput]
    inputs: tuple[str, ...] = ()
    """Names of the steps whose manifests it reads: the edges of every orchestrator's graph."""
    version: int = 1
    """Raise it when the code gives another result for the same inputs."""
    reads: tuple[str, ...] = ()
    """Sections of the configuration, besides the step's own, on which the result depends."""
    needs: Needs = field(default_factory=Needs)
    """Machine, time and secrets; every orchestrator asks its cluster for these."""
    is_exclusive: bool = False
    """Whether runs on one lake wait for each other."""
    sources: Callable[[Config, Inputs, Store], Mapping[str, str]] = field(default=lambda config, inputs, store: {})
    """State outside the inputs on which the result depends, as name to digest: new files, the champion."""
    assist: Callable[[Config, Inputs, Store], None] | None = None
    """The work of a launcher's further processes (ranks), which help the one that runs the step and publish nothing."""
    share: Callable[[Config, Inputs, Store, int, int], int] | None = None
    """Make the I-th of every N parts, on any machine, before `run` uses them; return how many were missing."""
    cleanup: Callable[[Config, Inputs, Store], None] = lambda config, inputs, store: None
    """Remove what only an unfinished run needs; called once the manifest is published."""


@dataclass(frozen=True)
class StepResult:
    """A step's manifest, and whether this call made it or found it."""

    manifest: Manifest
    is_new: bool


def run_step(step: Step, config: Config, inputs: Inputs, store: Store) -> StepResult:
    """Find the step's manifest for these inputs, or run the step. A killed run leaves no manifest to find."""
    key = key_of(step, config, inputs, store)
    must_wait = step.is_exclusive and not store.exists(manifest_uri(step.name, key))
    with exclusive(store, step.name) if must_wait else nullcontext():
        return _find_or_make(step, key, config, inputs, store)


def _find_or_make(step: Step, key: str, config: Config, inputs: Inputs, store: Store) -> StepResult:
    uri = manifest_uri(step.name, key)
    if store.exists(uri):
        return StepResult(read_manifest(store, uri), is_new=False)
    started = time.monotonic()
    made = step.run(config, inputs, store)
    manifest = Manifest(
        **dict(made),
        step=step.name,
        key=key,
        inputs={name: manifest.digest for name, manifest in inputs.items()},
        code_version=__version__,
        created_at=time.time(),
        seconds=round(time.monotonic() - started, 3),
    )
    try:
        store.create(uri, manifest.model_dump_json(indent=1).encode())
    except Conflict:  # another run of the same work published first; its result is equal
        return StepResult(read_manifest(store, uri), is_new=False)
    step.cleanup(config, inputs, store)
    return StepResult(manifest, is_new=True)


def assist_step(step: Step, config: Config, inputs: Inputs, store: Store) -> None:
    """Assist the process that runs the step, unless the step is done. Raises UserError if it runs in one process."""
    if step.assist is None:
        raise UserError(f"{step.name} runs in one process; start it without a launcher")
    if not store.exists(manifest_uri(step.name, key_of(step, config, inputs, store))):
        step.assist(config, inputs, store)


def share_step(step: Step, config: Config, inputs: Inputs, store: Store, number: int, of: int) -> int:
    """Make share `number` (from 1) of `of` of the step's missing parts; return how many it made.

    Raises UserError for a step without parts.
    """
    if step.share is None:
        raise UserError(f"{step.name} has no parts to share; run it without --share")
    if store.exists(manifest_uri(step.name, key_of(step, config, inputs, store))):
        return 0
    return step.share(config, inputs, store, number, of)


def key_of(step: Step, config: Config, inputs: Inputs, store: Store) -> str:
    if missing := set(step.inputs) ^ set(inputs):
        raise UserError(f"{step.name} takes the inputs {list(step.inputs)}; given {sorted(inputs)}, so see {missing}")
    sections = config.model_dump(mode="json")
    settings = {name: sections[name] for name in (step.name, *step.reads) if name in sections}
    digests = {name: manifest.digest for name, manifest in inputs.items()}
    return step_key(step.name, step.version, settings, {**digests, **step.sources(config, inputs, store)})


def read_manifest(store: Store, uri: str) -> Manifest:
    return Manifest.model_validate_json(store.read(uri))
