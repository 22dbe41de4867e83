"""One component a step. Kubeflow ships each function's source text, so each imports the installed package and calls it.

Inputs from other steps are references to manifests, never artifacts: Kubeflow's cache looks at parameters' values but
only at artifacts' names. pipelines.ARGUMENTS explains the parameters, since the UI shows them in the pipeline's form.
"""

from typing import NamedTuple

from kfp.dsl import HTML, ClassificationMetrics, Dataset, Markdown, Metrics, Model, Output, PipelineTaskFinalStatus


def collect_triplets(lake: str, config: str, triplets: Output[Dataset], summary: Output[Markdown]) -> str:
    """Join new votes with the answers that they judge."""
    from ratchet_pipelines.kubeflow.steps import run

    return run("collect_triplets", lake, config, {}, triplets=triplets, summary=summary).manifest


def validate_triplets(
    lake: str,
    config: str,
    collect_triplets: str,
    valid: Output[Dataset],
    quarantine: Output[Dataset],
    summary: Output[Markdown],
) -> str:
    """Keep good triplets; quarantine bad ones with their reasons."""
    from ratchet_pipelines.kubeflow.steps import run

    inputs = {"collect_triplets": collect_triplets}
    return run("validate_triplets", lake, config, inputs, valid=valid, quarantine=quarantine, summary=summary).manifest


def build_datasets(
    lake: str,
    config: str,
    validate_triplets: str,
    dataset: Output[Dataset],
    metrics: Output[Metrics],
    summary: Output[Markdown],
    report: Output[HTML],
) -> str:
    """Make SFT, DPO and KTO rows, split without leaks."""
    from ratchet_pipelines.kubeflow.steps import run

    inputs = {"validate_triplets": validate_triplets}
    return run(
        "build_datasets", lake, config, inputs, dataset=dataset, metrics=metrics, summary=summary, report=report
    ).manifest


def train_adapter(
    lake: str,
    config: str,
    build_datasets: str,
    adapter: Output[Model],
    metrics: Output[Metrics],
    summary: Output[Markdown],
) -> str:
    """Train a LoRA adapter on the dataset: SFT, then DPO."""
    from ratchet_pipelines.kubeflow.steps import run

    inputs = {"build_datasets": build_datasets}
    return run("train_adapter", lake, config, inputs, adapter=adapter, metrics=metrics, summary=summary).manifest


def evaluate_adapter(
    lake: str,
    config: str,
    build_datasets: str,
    train_adapter: str,
    metrics: Output[Metrics],
    verdicts: Output[ClassificationMetrics],
    summary: Output[Markdown],
    report: Output[HTML],
) -> str:
    """Compare the adapter with the incumbent on held-out votes."""
    from ratchet_pipelines.kubeflow.steps import run

    inputs = {"build_datasets": build_datasets, "train_adapter": train_adapter}
    return run(
        "evaluate_adapter", lake, config, inputs, metrics=metrics, verdicts=verdicts, summary=summary, report=report
    ).manifest


def register_adapter(
    lake: str,
    config: str,
    build_datasets: str,
    train_adapter: str,
    evaluate_adapter: str,
    version: Output[Model],
    summary: Output[Markdown],
) -> NamedTuple("Registered", [("Output", str), ("may_release", bool)]):  # type: ignore[valid-type]
    """Register the adapter in MLflow with its lineage and its verdict."""
    from ratchet_pipelines.kubeflow.steps import run

    inputs = {
        "build_datasets": build_datasets,
        "train_adapter": train_adapter,
        "evaluate_adapter": evaluate_adapter,
    }
    return tuple(run("register_adapter", lake, config, inputs, version=version, summary=summary))


def release_adapter(
    lake: str,
    config: str,
    train_adapter: str,
    evaluate_adapter: str,
    register_adapter: str,
    release: Output[Model],
    verdicts: Output[ClassificationMetrics],
    summary: Output[Markdown],
    report: Output[HTML],
    approved_by: str = "",
    why: str = "",
) -> str:
    """Name the adapter in Git and wait until its canary is promoted or rolled back."""
    from ratchet_pipelines.kubeflow.steps import approve, run

    approve(lake, register_adapter, approved_by, why)
    inputs = {
        "train_adapter": train_adapter,
        "evaluate_adapter": evaluate_adapter,
        "register_adapter": register_adapter,
    }
    return run(
        "release_adapter", lake, config, inputs, release=release, verdicts=verdicts, summary=summary, report=report
    ).manifest


def notify(lake: str, status: PipelineTaskFinalStatus) -> None:
    """Notify people of the end of the run, success or failure."""
    from ratchet_pipelines.kubeflow.notice import notify

    notify(lake, status.state or "", status.pipeline_job_resource_name or "", status.error_message or "")


STEP_COMPONENTS = (
    collect_triplets,
    validate_triplets,
    build_datasets,
    train_adapter,
    evaluate_adapter,
    register_adapter,
    release_adapter,
)
