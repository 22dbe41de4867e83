"""WorkflowTemplates: the whole loop, its three parts that start alone, and their exit handlers."""

from collections.abc import Sequence
from typing import Any

from hera.workflows import DAG, CronWorkflow, Parameter, Task, WorkflowTemplate
from hera.workflows.models import ContinueOn, DAGTask, PodGC, TemplateRef, TTLStrategy, ValueFrom, WorkflowTemplateRef

from ratchet.needs import STEP_ACCOUNT
from ratchet.step import Step
from ratchet_pipelines.argo.settings import STEPS_TEMPLATE, Settings, argo_name
from ratchet_pipelines.argo.steps import notify_template, report_template, step_template
from ratchet_pipelines.graph import STEPS

DAY_S = 24 * 3600
LOOP = "ratchet-loop"
PARTS = {
    "ratchet-collect-feedback": STEPS[:3],
    "ratchet-train-adapter": STEPS[3:6],
    "ratchet-release-adapter": STEPS[6:],
}
FORCE = Parameter(
    name="force",
    value="false",
    enum=["false", "true"],
    description="true starts release_adapter with any verdict; it refuses unless release_adapter.force is set too",
)
Template = WorkflowTemplate | CronWorkflow


def workflow_templates(settings: Settings) -> list[Template]:
    """Return all objects for Argo, each before those that refer to it."""
    parts = [_dag_template(name, steps, settings) for name, steps in {**PARTS, LOOP: STEPS}.items()]
    return [_steps(settings), *parts, _cron(settings)]


def _steps(settings: Settings) -> WorkflowTemplate:
    """The library: containers only, each used by reference."""
    containers = [step_template(step, settings) for step in STEPS]
    return WorkflowTemplate(
        name=STEPS_TEMPLATE,
        labels=_labels(settings),
        templates=[*containers, report_template(settings), notify_template(settings)],
    )


def _dag_template(name: str, steps: Sequence[Step], settings: Settings) -> WorkflowTemplate:
    inside = [step.name for step in steps]
    tasks: list[Task | DAGTask] = [_task(step, inside) for step in steps]
    missing = sorted({needed for step in steps for needed in step.inputs if needed not in inside})
    given = [Parameter(name=argo_name(needed), description=f"URI of {needed}'s manifest") for needed in missing]
    return WorkflowTemplate(
        name=name,
        labels=_labels(settings),
        entrypoint="main",
        on_exit="on-exit",
        arguments=[*given, *([FORCE] if _is_judged(inside) else [])],
        service_account_name=STEP_ACCOUNT,
        archive_logs=True,
        active_deadline_seconds=3 * DAY_S,
        pod_gc=PodGC(strategy="OnPodSuccess", delete_delay_duration="10m"),
        ttl_strategy=TTLStrategy(seconds_after_success=7 * DAY_S, seconds_after_failure=30 * DAY_S),
        templates=[
            DAG(name="main", tasks=tasks, outputs=_outputs(inside)),
            DAG(name="on-exit", tasks=_exit_tasks()),
        ],
    )


def _task(step: Step, inside: Sequence[str]) -> Task:
    """Return the task of a step. Its edges are its inputs; inputs from outside are workflow arguments."""
    arguments = [Parameter(name=argo_name(name), value=_uri(name, inside)) for name in step.inputs]
    # The values are quoted because Argo substitutes them before it parses.
    decision, force = "{{tasks.register-adapter.outputs.parameters.decision}}", "{{workflow.parameters.force}}"
    may_release = f"'{decision}' == 'pass' || '{force}' == 'true'"
    return Task(
        name=argo_name(step.name),
        template_ref=TemplateRef(name=STEPS_TEMPLATE, template=argo_name(step.name)),
        arguments=arguments,
        depends=" && ".join(argo_name(name) for name in step.inputs if name in inside) or None,
        when=may_release if step.name == "release_adapter" and _is_judged(inside) else None,
    )


def _uri(name: str, inside: Sequence[str]) -> str:
    place = f"tasks.{argo_name(name)}.outputs" if name in inside else "workflow"
    parameter = "uri" if name in inside else argo_name(name)
    return f"{{{{{place}.parameters.{parameter}}}}}"


def _is_judged(inside: Sequence[str]) -> bool:
    """Return whether a verdict precedes the release in this workflow. Started alone, a person has decided."""
    return {"register_adapter", "release_adapter"} <= set(inside)


def _outputs(inside: Sequence[str]) -> list[Parameter]:
    """Return the manifest URIs that the next part takes as arguments."""
    wanted = {needed for step in STEPS if step.name not in inside for needed in step.inputs if needed in inside}
    return [
        Parameter(name=argo_name(name), value_from=ValueFrom(parameter=_uri(name, inside)))
        for name in inside
        if name in wanted
    ]


def _exit_tasks() -> list[Task | DAGTask]:
    """Return the exit tasks: a report always, a notice on failure. Neither changes the workflow's status."""
    status = {"workflow": "{{workflow.name}}", "status": "{{workflow.status}}", "failures": "{{workflow.failures}}"}
    common: dict[str, Any] = {"continue_on": ContinueOn(failed=True, error=True)}
    report, notify = (TemplateRef(name=STEPS_TEMPLATE, template=name) for name in ("write-report", "notify"))
    return [
        Task(name="write-report", template_ref=report, **common),
        Task(
            name="notify",
            template_ref=notify,
            arguments=[Parameter(name=name, value=value) for name, value in status.items()],
            when="'{{workflow.status}}' != 'Succeeded'",
            **common,
        ),
    ]


def _cron(settings: Settings) -> CronWorkflow:
    """Return the loop on a schedule. Without new events every step finds its result and does nothing."""
    return CronWorkflow(
        name=LOOP,
        labels=_labels(settings),
        schedules=[settings.schedule],
        timezone="UTC",
        concurrency_policy="Forbid",
        starting_deadline_seconds=3600,
        successful_jobs_history_limit=3,
        failed_jobs_history_limit=3,
        workflow_template_ref=WorkflowTemplateRef(name=LOOP),
    )


def _labels(settings: Settings) -> dict[str, str]:
    return {"app.kubernetes.io/part-of": "ratchet", "app.kubernetes.io/version": settings.version}
