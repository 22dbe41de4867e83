"""The loop as Kubeflow pipelines: data, training and release, each of which starts alone, and the whole of them.

Edges come from the graph that every orchestrator shares; this module cuts it into pipelines and words their forms.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from kfp import dsl

from ratchet.needs import Needs
from ratchet_pipelines.graph import BY_NAME, NEEDS
from ratchet_pipelines.kubeflow import components
from ratchet_pipelines.kubeflow.resources import place

DATA = ("collect_triplets", "validate_triplets", "build_datasets")
TRAIN_AND_EVALUATE = ("train_adapter", "evaluate_adapter", "register_adapter")
RELEASE = ("release_adapter",)
CACHED = ("validate_triplets", "build_datasets", "train_adapter")
"""Steps whose result is a function of their parameters. The others read state: new votes, champion, canary."""

ARGUMENTS = {
    "lake": "The lake: s3://bucket/prefix. Everything is read from it and written to it.",
    "config": "The settings: URI@DIGEST of a ratchet.yaml (`ratchet config publish` prints it), its JSON on one line "
    "(`ratchet config json`), or the name of a profile (local, demo, gpu). No secrets: arguments are stored and shown.",
    "release": "Whether to release the adapter, if its verdict allows it. Otherwise the run ends with a registered "
    "version.",
    "approved_by": "Your name, which approves this release in the ledger, where release_adapter.approval is person.",
    "why": "The reason, for the ledger.",
    **{
        step: f"The `Output` of {step}: manifests/{step}/KEY.json@DIGEST. The digest is optional, and checked if given."
        for step in BY_NAME
    },
}
"""Explanation of each argument in the UI's form."""

MANIFEST = "Output"  # kfp's name for the value that a component returns
Pipeline = Any  # kfp has no types


@dataclass(frozen=True, kw_only=True)
class Images:
    """Images by digest. With one for CUDA, the steps that can use a GPU ask for one."""

    cpu: str
    cuda: str | None = None


class Trained(NamedTuple):
    """Outputs of training. `Output` says whether a release may follow: kfp.local finds no other name in a condition."""

    train_adapter: str
    evaluate_adapter: str
    register_adapter: str
    Output: bool
    adapter: dsl.Model


class Built(NamedTuple):
    """Outputs of the data pipeline: the manifest for the next step, and the dataset as Kubeflow's own kind."""

    Output: str
    dataset: dsl.Dataset


class Site:
    """Adds steps to the pipeline that is being traced, as tasks of these images with these needs."""

    def __init__(self, images: Images, needs: Mapping[str, Needs]) -> None:
        self.images, self.needs = images, needs

    def chain(
        self, steps: tuple[str, ...], lake: Any, config: Any, made: Mapping[str, Any], **more: Any
    ) -> dict[str, Any]:
        """Tasks for the steps, each given the manifests that it reads, and `more`; the tasks by name."""
        manifests, tasks = dict(made), {}
        for name in steps:
            given = {source: manifests[source] for source in BY_NAME[name].inputs}
            tasks[name] = self.task(getattr(components, name), lake=lake, config=config, **given, **more)
            manifests[name] = tasks[name].outputs[MANIFEST]
        return tasks

    def task(self, function: Callable[..., Any], **arguments: Any) -> Any:
        name = function.__name__
        needs = self.needs.get(name)
        cuda = self.images.cuda if needs is not None and needs.gpus else None
        component = dsl.component(function, base_image=cuda or self.images.cpu, install_kfp_package=False)
        task = component(**arguments).set_caching_options(name in CACHED)
        if needs is not None:
            place(task, needs if cuda else needs.without_gpu())
        return task


def build_pipelines(images: Images, needs: Mapping[str, Needs] = NEEDS) -> dict[str, Pipeline]:
    """Return the four pipelines by name."""
    site = Site(images, needs)
    data, train, release = _data(site), _train_and_evaluate(site), _release(site)
    whole = _whole(site, data, train, release)
    return {pipeline.name: pipeline for pipeline in (whole, data, train, release)}


def _data(site: Site) -> Pipeline:
    def data(lake: str, config: str) -> Built:
        """Votes to datasets: collect, validate, build."""
        built = site.chain(DATA, lake, config, {})["build_datasets"]
        return Built(built.outputs[MANIFEST], built.outputs["dataset"])

    return _pipeline("ratchet-data", data)


def _train_and_evaluate(site: Site) -> Pipeline:
    def train_and_evaluate(lake: str, config: str, build_datasets: str) -> Trained:
        """A dataset to a registered adapter with a verdict: train, evaluate, register."""
        tasks = site.chain(TRAIN_AND_EVALUATE, lake, config, {"build_datasets": build_datasets})
        manifests = {name: task.outputs[MANIFEST] for name, task in tasks.items()}
        may_release = tasks["register_adapter"].outputs["may_release"]
        return Trained(**manifests, Output=may_release, adapter=tasks["train_adapter"].outputs["adapter"])

    return _pipeline("ratchet-train-and-evaluate", train_and_evaluate)


def _release(site: Site) -> Pipeline:
    def release(
        lake: str,
        config: str,
        train_adapter: str,
        evaluate_adapter: str,
        register_adapter: str,
        approved_by: str = "",
        why: str = "",
    ) -> str:
        """A registered adapter to all users, or back: Git, canary, votes. A verdict that is no pass is refused."""
        made = {
            "train_adapter": train_adapter,
            "evaluate_adapter": evaluate_adapter,
            "register_adapter": register_adapter,
        }
        released = site.chain(RELEASE, lake, config, made, approved_by=approved_by, why=why)["release_adapter"]
        manifest: str = released.outputs[MANIFEST]
        return manifest

    return _pipeline("ratchet-release", release)


def _whole(site: Site, data: Pipeline, train_and_evaluate: Pipeline, release_adapter: Pipeline) -> Pipeline:
    def ratchet(lake: str, config: str, release: bool = False) -> None:
        """The whole loop: from users' votes to a better adapter."""
        with dsl.ExitHandler(site.task(components.notify, lake=lake)):
            built = never_cached(data(lake=lake, config=config))
            dataset = built.outputs[MANIFEST]
            trained = never_cached(train_and_evaluate(lake=lake, config=config, build_datasets=dataset))
            may_release = trained.outputs["Output"]
            # kfp traces `==`, and takes one comparison a condition.
            with dsl.If(release == True, "release is asked for"):  # noqa: E712, SIM117
                with dsl.If(may_release == True, "verdict allows it"):  # noqa: E712
                    made = {name: trained.outputs[name] for name in TRAIN_AND_EVALUATE}
                    never_cached(release_adapter(lake=lake, config=config, **made))

    return _pipeline("ratchet", ratchet)


def never_cached(nested: Any) -> Any:
    """Turn caching off for the nested pipeline; its tasks set their own."""
    return nested.set_caching_options(False)


def _pipeline(name: str, function: Callable[..., Any]) -> Pipeline:
    """Make the pipeline, and explain each argument where the UI reads it: in the docstring's `Args:`."""
    explained = "\n".join(
        f"    {argument}: {ARGUMENTS[argument]}" for argument in inspect.signature(function).parameters
    )
    function.__doc__ = f"{function.__doc__}\n\nArgs:\n{explained}\n"
    return dsl.pipeline(function, name=name)
