"""WorkflowTemplates: the whole loop, its three parts that start alone, and their exit handlers."""

from collections.abc import Sequence
from typing import Any

from hera.workflows import DAG, Container, CronWorkflow, Parameter, Suspend, Task, WorkflowTemplate
from hera.workflows.models import ContinueOn, DAGTask, PodGC, TemplateRef, TTLStrategy, ValueFrom, WorkflowTemplateRef

from ratchet.needs import STEP_ACCOUNT
from ratchet.step import Step
from ratchet_pipelines.argo.settings import SCHEDULER, STEPS_TEMPLATE, Settings, argo_name
from ratchet_pipelines.argo.steps import (
    ANSWER,
    APPROVE,
    approve_template,
    ask_template,
    notify_template,
    report_template,
    step_template,
)
from ratchet_pipelines.graph import STEPS

DAY_S = 24 * 3600
LOOP = "ratchet-loop"
PARTS = {
    "ratchet-collect-feedback": STEPS[:3],
    "ratchet-train-adapter": STEPS[3:6],
    "ratchet-release-adapter": STEPS[6:],
}
# The values are quoted because Argo substitutes them before it parses.
MAY_RELEASE = (
    "'{{tasks.register-adapter.outputs.parameters.decision}}' == 'pass' || '{{workflow.parameters.force}}' == 'true'"
)
FORCE = Parameter(
    name="force",
    value="false",
    enum=["false", "true"],
    description="true starts release_adapter with any verdict; it refuses unless release_adapter.force is set too",
)
SCHEDULED_BY = Parameter(name="scheduler", value="", description="set by the schedule; empty where a person starts it")
APPROVED_BY = (
    Parameter(name="approved-by", value="", description="your name: approves this release, in the ledger"),
    Parameter(name="why", value="", description="the reason, for the ledger"),
)
Template = WorkflowTemplate | CronWorkflow


def workflow_templates(settings: Settings) -> list[Template]:
    """Return all objects for Argo, each before those that refer to it."""
    parts = [_dag_template(name, steps, settings) for name, steps in {**PARTS, LOOP: STEPS}.items()]
    return [_steps(settings), *parts, _cron(settings)]


def _steps(settings: Settings) -> WorkflowTemplate:
    """The library: what tasks run, each used by reference."""
    containers = [step_template(step, settings) for step in STEPS]
    around: list[Container | Suspend] = [
        ask_template(),
        approve_template(settings),
        report_template(settings),
        notify_template(settings),
    ]
    return WorkflowTemplate(name=STEPS_TEMPLATE, labels=_labels(settings), templates=[*containers, *around])


def _dag_template(name: str, steps: Sequence[Step], settings: Settings) -> WorkflowTemplate:
    inside = [step.name for step in steps]
    tasks: list[Task | DAGTask] = [*(_task(step, inside) for step in steps), *_approval_tasks(inside)]
    missing = sorted({needed for step in steps for needed in step.inputs if needed not in inside})
    given = [Parameter(name=argo_name(needed), description=f"URI of {needed}'s manifest") for needed in missing]
    return WorkflowTemplate(
        name=name,
        labels=_labels(settings),
        entrypoint="main",
        on_exit="on-exit",
        arguments=[*given, *_parameters(inside, settings)],
        service_account_name=STEP_ACCOUNT,
        archive_logs=True,
        active_deadline_seconds=6 * DAY_S,  # of them three for a person, and one for a canary
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
    if not step.inputs:
        arguments.append(Parameter(name="scheduler", value="{{workflow.parameters.scheduler}}"))
    after = [argo_name(name) for name in step.inputs if name in inside]
    if step.name == "release_adapter":  # a no ends the workflow in peace: the release is left out
        after.append("(approve.Succeeded || ask-person.Skipped)" if _is_judged(inside) else "approve")
    return Task(
        name=argo_name(step.name),
        template_ref=TemplateRef(name=STEPS_TEMPLATE, template=argo_name(step.name)),
        arguments=arguments,
        depends=" && ".join(after) or None,
        when=MAY_RELEASE if step.name == "release_adapter" and _is_judged(inside) else None,
    )


def _approval_tasks(inside: Sequence[str]) -> list[Task]:
    """Return the tasks that ask a person and write the yes into the ledger.

    The loop asks after a verdict that may release; a release that is started alone takes the yes as arguments.
    """
    if "release_adapter" not in inside:
        return []
    ask = Task(
        name="ask-person",
        template_ref=TemplateRef(name=STEPS_TEMPLATE, template="ask-person"),
        depends="register-adapter",
        when=f"({MAY_RELEASE}) && '{{{{workflow.parameters.approval}}}}' == 'person'",
    )
    is_asked = _is_judged(inside)
    said = {name: f"{{{{tasks.ask-person.outputs.parameters.{name}}}}}" for name in (ANSWER, "who", "why")}
    given = {"who": "{{workflow.parameters.approved-by}}", "why": "{{workflow.parameters.why}}"}
    words = {"register-adapter": _uri("register_adapter", inside), **(said if is_asked else given)}
    approve = Task(
        name="approve",
        template_ref=TemplateRef(name=STEPS_TEMPLATE, template="approve"),
        arguments=[Parameter(name=name, value=words[name]) for name in ("register-adapter", "who", "why")],
        depends="register-adapter && ask-person.Succeeded" if is_asked else None,
        # No condition on a name: a quote in it would break the condition, and the command does nothing without one.
        when=f"'{said[ANSWER]}' == '{APPROVE}'" if is_asked else None,
    )
    return [ask, approve] if is_asked else [approve]


def _parameters(inside: Sequence[str], settings: Settings) -> list[Parameter]:
    """Return what a person may set when starting it, besides manifests."""
    approval = Parameter(
        name="approval",
        value=settings.approval,
        enum=["none", "person"],
        description="person asks before the release; ratchet.yaml's release_adapter.approval refuses one without a yes",
    )
    if _is_judged(inside):
        return [SCHEDULED_BY, FORCE, approval]
    return [SCHEDULED_BY] if "collect_triplets" in inside else list(APPROVED_BY) if "release_adapter" in inside else []


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
    """Return the loop on a schedule, suspended unless it is chosen: a lake has one scheduler.

    Without new events every step finds its result and does nothing.
    """
    return CronWorkflow(
        name=LOOP,
        labels=_labels(settings),
        schedules=[settings.schedule],
        timezone="UTC",
        cron_suspend=not settings.is_scheduled,
        concurrency_policy="Forbid",
        starting_deadline_seconds=3600,
        successful_jobs_history_limit=3,
        failed_jobs_history_limit=3,
        workflow_template_ref=WorkflowTemplateRef(name=LOOP),
        arguments=[Parameter(name=SCHEDULED_BY.name, value=SCHEDULER)],
    )


def _labels(settings: Settings) -> dict[str, str]:
    return {"app.kubernetes.io/part-of": "ratchet", "app.kubernetes.io/version": settings.version}
