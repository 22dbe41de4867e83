"""Container templates: one a step, each the `ratchet` command and nothing else."""

from dataclasses import dataclass
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
)
from hera.workflows.models import (
    Backoff,
    Capabilities,
    Mutex,
    PodSecurityContext,
    SeccompProfile,
    SecurityContext,
    Synchronization,
    Toleration,
    ValueFrom,
)

from ratchet.step import Step
from ratchet_pipelines.argo.settings import (
    CONFIG_MAP,
    ENVIRONMENT_SECRET,
    GATE_SECRET,
    GIT_SECRET,
    RELEASE_ACCOUNT,
    Settings,
    argo_name,
)

OUT = "/tmp/out"
CONFIG_FOLDER = "/etc/ratchet"
HOUR_S = 3600
USER_ID = 10001
# A user's mistake exits with 2: trying again would only fail again. All else may be a lost machine, and every step
# takes up where it stopped. No maxDuration: it would count the hours that a training ran before its node died.
RETRY = RetryStrategy(
    limit=3,
    retry_policy="Always",
    expression="asInt(lastRetry.exitCode) != 2",
    backoff=Backoff(duration="1m", factor=2),
)
GPU_TOLERATION = Toleration(key="nvidia.com/gpu", operator="Exists", effect="NoSchedule")


@dataclass(frozen=True)
class Size:
    cpu: int
    memory: str
    gpus: int | None = None


SMALL = Size(1, "2Gi")
MEDIUM = Size(2, "8Gi")
SIZES = {"collect_triplets": MEDIUM, "validate_triplets": MEDIUM, "build_datasets": MEDIUM}
DEVICE_STEPS = ("train_adapter", "evaluate_adapter")  # those whose section of ratchet.yaml has a `device`
CPU_MODEL = Size(2, "16Gi")
GPU_MODEL = Size(8, "64Gi", gpus=1)
# Fences against hanging, several times what a step should take. The release gives up by itself, and says why, after
# release_adapter.timeout_s: a day in the gpu profile.
DEADLINE_HOURS = {"train_adapter": 24, "evaluate_adapter": 8, "release_adapter": 26}
# One pod of the namespace at a time; the others queue. A namespace serves one model.
MUTEXES = {"train_adapter": "ratchet-train", "release_adapter": "ratchet-release"}


def step_template(step: Step, settings: Settings) -> Container:
    """The step's command. Takes its inputs' manifest URIs; gives its own and its decision."""
    given = [f"--in={name}={{{{inputs.parameters.{argo_name(name)}}}}}" for name in step.inputs]
    mutex = MUTEXES.get(step.name)
    return Container(
        name=argo_name(step.name),
        args=[step.name, *given, f"--out={OUT}"],
        inputs=[Parameter(name=argo_name(name), description=f"URI of {name}'s manifest") for name in step.inputs],
        outputs=[_output("uri"), _output("decision"), _artifact("result", "return.json", argo_name(step.name))],
        active_deadline_seconds=DEADLINE_HOURS.get(step.name, 2) * HOUR_S,
        synchronization=Synchronization(mutexes=[Mutex(name=mutex)]) if mutex else None,
        **_machine(step, settings),
        **_rights(step),
        **_base(),
    )


def report_template(settings: Settings) -> Container:
    """The HTML report on the lake's newest run, which Argo's pages show in place."""
    return Container(
        name="write-report",
        image=settings.image,
        args=["report", f"--out={OUT}/report.html"],
        env_from=[SecretEnvFrom(name=ENVIRONMENT_SECRET, optional=True)],
        outputs=[_artifact("report", "report.html", "report")],
        active_deadline_seconds=HOUR_S,
        resources=_resources(SMALL),
        **_base(),
    )


def notify_template(settings: Settings) -> Container:
    """Tell people which step failed and what it said."""
    told = ("workflow", "status", "failures")
    environment = [Env(name=f"WORKFLOW_{name.upper()}", value=f"{{{{inputs.parameters.{name}}}}}") for name in told]
    return Container(
        name="notify",
        image=settings.image,
        env_from=[SecretEnvFrom(name=ENVIRONMENT_SECRET, optional=True)],
        inputs=[Parameter(name=name) for name in told],
        active_deadline_seconds=HOUR_S,
        resources=_resources(SMALL),
        **_base() | {"command": ["python", "-m", "ratchet_pipelines.argo.notify"], "env": environment},
    )


def _machine(step: Step, settings: Settings) -> dict[str, Any]:
    if step.name not in DEVICE_STEPS:
        return {"image": settings.image, "resources": _resources(SIZES.get(step.name, SMALL))}
    if settings.cuda_image is None:
        return {"image": settings.image, "resources": _resources(CPU_MODEL)}
    return {"image": settings.cuda_image, "resources": _resources(GPU_MODEL), "tolerations": [GPU_TOLERATION]}


def _rights(step: Step) -> dict[str, Any]:
    """Only the release may push to Git, look at the canary and ask the gate."""
    is_release = step.name == "release_adapter"
    secrets = [ENVIRONMENT_SECRET, GIT_SECRET, GATE_SECRET] if is_release else [ENVIRONMENT_SECRET]
    return {
        "service_account_name": RELEASE_ACCOUNT if is_release else None,
        "env_from": [SecretEnvFrom(name=name, optional=True) for name in secrets],
    }


def _base() -> dict[str, Any]:
    """What every container has: settings, no privileges, a place to write, its last words as the node's message."""
    return {
        "command": ["ratchet"],
        "env": [
            ConfigMapEnv(name="RATCHET_LAKE", config_map_name=CONFIG_MAP, config_map_key="lake"),
            Env(name="RATCHET_CONFIG", value=f"{CONFIG_FOLDER}/ratchet.yaml"),
            Env(name="HOME", value="/tmp"),
            Env(name="COLUMNS", value="200"),  # else a message is cut into lines of 80, and the last ones are kept
        ],
        "volumes": [
            ConfigMapVolume(name=CONFIG_MAP, mount_path=CONFIG_FOLDER, read_only=True),
            EmptyDirVolume(name="work", mount_path="/tmp"),
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


def _resources(size: Size) -> Resources:
    return Resources(cpu_request=size.cpu, memory_request=size.memory, memory_limit=size.memory, gpus=size.gpus)


def _output(name: str) -> Parameter:
    return Parameter(name=name, value_from=ValueFrom(path=f"{OUT}/{name}"))


def _artifact(name: str, file: str, stem: str) -> S3Artifact:
    """In the namespace's artifact repository: the bucket is the cluster's business."""
    key = f"ratchet/{{{{workflow.name}}}}/{stem}.{file.split('.')[-1]}"
    return S3Artifact(name=name, path=f"{OUT}/{file}", key=key, archive=NoneArchiveStrategy())
