"""Container templates: one a step, each the `ratchet` command and nothing else."""

from typing import Any

from hera.workflows import (
    ConfigMapEnv,
    ConfigMapVolume,
    Container,
    EmptyDirVolume,
    Env,
    NoneArchiveStrategy,
    Parameter,
    Resources,
    RetryStrategy,
    S3Artifact,
    SecretEnvFrom,
    Suspend,
)
from hera.workflows.models import (
    Backoff,
    Capabilities,
    Mutex,
    PodSecurityContext,
    Quantity,
    SeccompProfile,
    SecurityContext,
    SuppliedValueFrom,
    Synchronization,
    Toleration,
    ValueFrom,
)

from ratchet.needs import CONFIG_FOLDER, CONFIG_MAP, HOUR_S, STEP_ACCOUNT, USER_ID, Needs
from ratchet.step import Step
from ratchet_pipelines.argo.settings import Settings, argo_name
from ratchet_pipelines.graph import NEEDS

OUT = "/tmp/out"
VOLUMES = (
    ConfigMapVolume(name=CONFIG_MAP, mount_path=CONFIG_FOLDER, read_only=True),
    EmptyDirVolume(name="work", mount_path="/tmp"),
)
# A user's mistake exits with 2: trying again would only fail again. All else may be a lost machine, and every step
# takes up where it stopped. No maxDuration: it would count the hours that a training ran before its node died.
RETRY = RetryStrategy(
    limit=3,
    retry_policy="Always",
    expression="asInt(lastRetry.exitCode) != 2",
    backoff=Backoff(duration="1m", factor=2),
)
ANSWER, APPROVE, REJECT = "answer", "approve", "reject"
ASK_S = 3 * 24 * HOUR_S  # a weekend
GPU_TOLERATION = Toleration(key="nvidia.com/gpu", operator="Exists", effect="NoSchedule")
# One pod of the namespace at a time; the others queue. A namespace serves one model.
MUTEXES = {"train_adapter": "ratchet-train", "release_adapter": "ratchet-release"}


def step_template(step: Step, settings: Settings) -> Container:
    """Return the container of the step's command: manifest URIs in, its own URI and decision out."""
    given = [f"--in={name}={{{{inputs.parameters.{argo_name(name)}}}}}" for name in step.inputs]
    inputs = [Parameter(name=argo_name(name), description=f"URI of {name}'s manifest") for name in step.inputs]
    if not step.inputs:  # the loop starts here, so here a schedule says whose it is
        given.append("--scheduler={{inputs.parameters.scheduler}}")
        inputs.append(Parameter(name="scheduler", value="", description="the scheduler that started the workflow"))
    mutex = MUTEXES.get(step.name)
    return Container(
        name=argo_name(step.name),
        args=[step.name, *given, f"--out={OUT}"],
        inputs=inputs,
        outputs=[_output("uri"), _output("decision"), _artifact("result", "return.json", argo_name(step.name))],
        synchronization=Synchronization(mutexes=[Mutex(name=mutex)]) if mutex else None,
        **_placed(step.needs, settings),
        **_base(),
    )


def ask_template() -> Suspend:
    """Return the node that waits for a person: Argo's UI shows its inputs as a form. No answer is a no."""
    about = {
        ANSWER: "approve releases the adapter to a canary of users",
        "who": "your name, for the ledger",
        "why": "the reason, for the ledger",
    }
    defaults = {ANSWER: REJECT, "who": "a person in Argo", "why": "approved in Argo"}
    choices = {ANSWER: [APPROVE, REJECT]}
    return Suspend(
        name="ask-person",
        duration=ASK_S,
        inputs=[
            Parameter(name=name, description=text, default=defaults[name], enum=choices.get(name))
            for name, text in about.items()
        ],
        outputs=[
            Parameter(name=name, value_from=ValueFrom(supplied=SuppliedValueFrom(), default=defaults[name]))
            for name in about
        ],
    )


def approve_template(settings: Settings) -> Container:
    """Return the container that writes a person's yes into the ledger."""
    adapter, who, why = (f"{{{{inputs.parameters.{name}}}}}" for name in ("register-adapter", "who", "why"))
    return Container(
        name="approve",
        args=["approve", "--optional", f"--who={who}", "--", adapter, why],
        inputs=[Parameter(name=name) for name in ("register-adapter", "who", "why")],
        **_placed(NEEDS["approve"], settings),
        **_base(),
    )


def report_template(settings: Settings) -> Container:
    """Return the container that writes the HTML report on the newest run, which Argo's UI shows."""
    return Container(
        name="write-report",
        args=["report", f"--out={OUT}/report.html"],
        outputs=[_artifact("report", "report.html", "report")],
        **_placed(NEEDS["report"], settings),
        **_base(),
    )


def notify_template(settings: Settings) -> Container:
    """Notify people of the failed step and its message."""
    names = ("workflow", "status", "failures")
    environment = [Env(name=f"WORKFLOW_{name.upper()}", value=f"{{{{inputs.parameters.{name}}}}}") for name in names]
    return Container(
        name="notify",
        inputs=[Parameter(name=name) for name in names],
        **_placed(NEEDS["notify"], settings),
        **_base() | {"command": ["python", "-m", "ratchet_pipelines.argo.notify"], "env": environment},
    )


def _placed(needs: Needs, settings: Settings) -> dict[str, Any]:
    """Return image, machine, deadline, secrets and account as the needs ask for them."""
    cuda = settings.cuda_image if needs.gpus else None
    needs = needs if cuda else needs.without_gpu()
    volumes: list[ConfigMapVolume | EmptyDirVolume] = [*VOLUMES]
    if needs.shared_memory:
        size = Quantity(needs.shared_memory)
        volumes.append(EmptyDirVolume(name="shm", mount_path="/dev/shm", medium="Memory", size_limit=size))
    return {
        "image": cuda or settings.image,
        "resources": Resources(
            cpu_request=needs.cpu,
            memory_request=needs.memory,
            memory_limit=needs.memory,
            ephemeral_request=needs.ephemeral_storage,
            ephemeral_limit=needs.ephemeral_storage,
            gpus=needs.gpus or None,
        ),
        "tolerations": [GPU_TOLERATION] if needs.gpus else None,
        "volumes": volumes,
        "active_deadline_seconds": needs.timeout_s,
        "env_from": [SecretEnvFrom(name=name, optional=True) for name in needs.secrets],
        "service_account_name": None if needs.service_account == STEP_ACCOUNT else needs.service_account,
    }


def _base() -> dict[str, Any]:
    """Return the fields of every container: settings, no privileges, the log's end as the node's message."""
    return {
        "command": ["ratchet"],
        "env": [
            ConfigMapEnv(name="RATCHET_LAKE", config_map_name=CONFIG_MAP, config_map_key="lake"),
            Env(name="RATCHET_CONFIG", value=f"{CONFIG_FOLDER}/ratchet.yaml"),
            Env(name="HOME", value="/tmp"),
            Env(name="COLUMNS", value="200"),  # else a message is cut into lines of 80, and the last ones are kept
        ],
        "retry_strategy": RETRY,
        "termination_message_policy": "FallbackToLogsOnError",
        "pod_security_context": PodSecurityContext(
            run_as_non_root=True,
            run_as_user=USER_ID,
            run_as_group=USER_ID,
            fs_group=USER_ID,
            seccomp_profile=SeccompProfile(type="RuntimeDefault"),
        ),
        "security_context": SecurityContext(
            allow_privilege_escalation=False, read_only_root_filesystem=True, capabilities=Capabilities(drop=["ALL"])
        ),
    }


def _output(name: str) -> Parameter:
    return Parameter(name=name, value_from=ValueFrom(path=f"{OUT}/{name}"))


def _artifact(name: str, file: str, stem: str) -> S3Artifact:
    """Return an artifact in the namespace's artifact repository; the cluster configures the bucket."""
    key = f"ratchet/{{{{workflow.name}}}}/{stem}.{file.split('.')[-1]}"
    return S3Artifact(name=name, path=f"{OUT}/{file}", key=key, archive=NoneArchiveStrategy())
