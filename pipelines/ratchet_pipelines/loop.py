"""Run all seven steps in one process, in order; a step whose result is in the lake is not run again."""

from collections.abc import Callable, Sequence
from typing import Any

from ratchet.config import Config
from ratchet.manifest import Manifest
from ratchet.step import Step, StepResult, run_step
from ratchet.store import Store
from ratchet_pipelines.graph import STEPS

OnStep = Callable[[Step, StepResult | None], None]
"""Called with None when a step begins and with its result when it ends."""


def run_loop(config: Config, store: Store, watch: OnStep, steps: Sequence[Step] = STEPS) -> dict[str, StepResult]:
    """Run the steps in order and return their results by step name."""
    done: dict[str, StepResult] = {}
    for step in steps:
        watch(step, None)
        inputs = {name: done[name].manifest for name in step.inputs}
        done[step.name] = run_step(step, config, inputs, store)
        watch(step, done[step.name])
    return done


def summarize(done: dict[str, StepResult]) -> dict[str, Any]:
    """Return the run as one JSON object: rows and drops of each step, digests, verdict, version, outcome, seconds."""
    manifests = {name: ran.manifest for name, ran in done.items()}
    return {
        "steps": {name: _step_summary(ran) for name, ran in done.items()},
        "dataset": _output(manifests, "build_datasets", "dataset"),
        "adapter": _output(manifests, "train_adapter", "adapter"),
        "verdict": _facts(manifests, "evaluate_adapter"),
        "version": _facts(manifests, "register_adapter"),
        "release": _facts(manifests, "release_adapter"),
    }


def _step_summary(ran: StepResult) -> dict[str, Any]:
    manifest = ran.manifest
    return {
        "manifest": manifest.uri,
        "digest": manifest.digest,
        "did_work": ran.is_new,
        "seconds": manifest.seconds,
        "flows": {unit: flow.model_dump() for unit, flow in manifest.flows.items()},
    }


def _output(manifests: dict[str, Manifest], step: str, output: str) -> dict[str, Any] | None:
    if step not in manifests:
        return None
    return {**manifests[step].outputs[output].model_dump(), "sizes": manifests[step].facts.get("sizes")}


def _facts(manifests: dict[str, Manifest], step: str) -> dict[str, Any] | None:
    return manifests[step].facts if step in manifests else None
