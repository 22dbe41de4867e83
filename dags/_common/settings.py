"""Where steps run, and on what: the one place that reads the environment.

| variable | meaning | default |
|---|---|---|
| `RATCHET_EXECUTION` | `local`: steps are processes on this machine. `kubernetes`: steps are pods | `local` |
| `RATCHET_COMMAND` | local: the `ratchet` program | `.venv/bin/ratchet` next to `dags/` |
| `RATCHET_LAKE`, `RATCHET_CONFIG` | local: the lake and ratchet.yaml, as `ratchet` itself reads them | its own |
| `RATCHET_PODS` | kubernetes: a JSON file with the fields of `Pods` | none |
| `RATCHET_APPROVAL` | `on` or `off`: does a person approve each release | on in pods, off locally |
| `RATCHET_SCHEDULER` | name of this Airflow on the lake, which has one scheduler; no two alike | `airflow` |
| `RATCHET_MIN_NEW_TRIPLETS` | new triplets that start a training | 500 |
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from _common.resources import TABLE

DEFAULT_COMMAND = Path(__file__).resolve().parents[2] / ".venv" / "bin" / "ratchet"


@dataclass(frozen=True, kw_only=True)
class Pods:
    """What pods of steps have in common. Images are named by digest, never by tag.

    | key | meaning |
    |---|---|
    | `images` | `cpu` and `cuda`: the image of steps without and with GPUs, as NAME@sha256:… |
    | `image_pull_secrets` | names of the Secrets with which a node fetches them |
    | `lake` | s3://BUCKET/PREFIX |
    | `namespace` | where steps run; all that these keys name is there |
    | `service_account`, `release_service_account` | of all steps, and of those that push to Git and read the canary |
    | `config_map` | with the key `ratchet.yaml` |
    | `secret`, `git_secret`, `gate_secret` | become environment; they need not exist |
    | `labels`, `annotations` | of every pod: cost, owner |
    | `node_selector`, `tolerations`, `affinity` | which nodes take it; the latter two as Kubernetes has them |
    | `priority_class` | who goes first where there is no room |
    | `gpu_labels`, `gpu_annotations`, `gpu_node_selector`, `gpu_tolerations` | what steps with GPUs have besides |
    | `gpu_affinity`, `gpu_priority_class` | what steps with GPUs have instead |
    | `weights_claim` | a claim that keeps the Hub's weights for steps with GPUs; without it each pod fetches them |
    | `schedule_timeout_s` | how long a pod may wait for its node, or for its queue |
    | `startup_timeout_s` | how long its node may take to start it: an image has some gigabytes |

    A pod that waits longer is deleted, and the task tried again. `kueue.x-k8s.io/queue-name` is a label.
    """

    images: Mapping[str, str]
    image_pull_secrets: Sequence[str] = ()
    namespace: str = "ratchet"
    service_account: str = TABLE["accounts"]["steps"]
    release_service_account: str = TABLE["accounts"]["release"]
    lake: str
    config_map: str = TABLE["config_map"]
    secret: str = TABLE["secrets"]["environment"]
    git_secret: str = TABLE["secrets"]["git"]
    gate_secret: str = TABLE["secrets"]["gate"]
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: Sequence[Mapping[str, Any]] = ()
    affinity: Mapping[str, Any] | None = None
    priority_class: str | None = None
    gpu_labels: Mapping[str, str] = field(default_factory=dict)
    # Karpenter evicts pods that no controller owns to pack its nodes better. A training then goes back to its last
    # checkpoint, on a node to be bought anew. Other steps lose a minute, so their nodes stay free to be packed.
    gpu_annotations: Mapping[str, str] = field(default_factory=lambda: {"karpenter.sh/do-not-disrupt": "true"})
    gpu_node_selector: Mapping[str, str] = field(default_factory=dict)
    gpu_tolerations: Sequence[Mapping[str, Any]] = (
        {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},
    )
    gpu_affinity: Mapping[str, Any] | None = None
    gpu_priority_class: str | None = None
    weights_claim: str | None = None
    schedule_timeout_s: int = 1800
    startup_timeout_s: int = 900

    @property
    def secret_names(self) -> dict[str, str]:
        """This cluster's name of each Secret that `needs.json` names."""
        names = TABLE["secrets"]
        return {names["environment"]: self.secret, names["git"]: self.git_secret, names["gate"]: self.gate_secret}

    @property
    def account_names(self) -> dict[str, str]:
        """This cluster's name of each service account that `needs.json` names."""
        names = TABLE["accounts"]
        return {names["steps"]: self.service_account, names["release"]: self.release_service_account}

    def __post_init__(self) -> None:
        if missing := {"cpu", "cuda"} - set(self.images):
            raise ValueError(f"RATCHET_PODS: images lacks {sorted(missing)}; name an image for each, by digest")
        for kind, image in self.images.items():
            if "@sha256:" not in image:
                raise ValueError(f"RATCHET_PODS: images.{kind} = {image} has no digest; write NAME@sha256:…")


@dataclass(frozen=True, kw_only=True)
class Settings:
    execution: str
    command: str
    min_new_triplets: int
    needs_approval: bool
    scheduler: str = "airflow"
    pods: Pods | None = None


def read_settings(environment: Mapping[str, str]) -> Settings:
    """The settings. Raises ValueError, which Airflow shows as the import error of every DAG."""
    execution = environment.get("RATCHET_EXECUTION", "local")
    if execution not in ("local", "kubernetes"):
        raise ValueError(f"RATCHET_EXECUTION = {execution}: write local or kubernetes")
    in_pods = execution == "kubernetes"
    approval = environment.get("RATCHET_APPROVAL", "on" if in_pods else "off")
    if approval not in ("on", "off"):
        raise ValueError(f"RATCHET_APPROVAL = {approval}: write on or off")
    return Settings(
        execution=execution,
        command=environment.get("RATCHET_COMMAND", str(DEFAULT_COMMAND)),
        min_new_triplets=int(environment.get("RATCHET_MIN_NEW_TRIPLETS", "500")),
        needs_approval=approval == "on",
        scheduler=environment.get("RATCHET_SCHEDULER", "airflow"),
        pods=_read_pods(environment.get("RATCHET_PODS")) if in_pods else None,
    )


def _read_pods(path: str | None) -> Pods:
    if path is None:
        raise ValueError("RATCHET_EXECUTION = kubernetes needs RATCHET_PODS: a JSON file; see docs/airflow.md")
    try:
        given = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise ValueError(f"RATCHET_PODS = {path} cannot be read: {error}") from None
    known = {one.name for one in fields(Pods)}
    if unknown := set(given) - known:
        raise ValueError(f"RATCHET_PODS = {path}: no such keys: {sorted(unknown)}; known are {sorted(known)}")
    if missing := {"images", "lake"} - set(given):
        raise ValueError(f"RATCHET_PODS = {path} lacks {sorted(missing)}")
    try:
        return TypeAdapter(Pods).validate_python(given)
    except ValidationError as error:
        raise ValueError(f"RATCHET_PODS = {path}: {'; '.join(map(_words, error.errors()))}") from None


def _words(fault: Any) -> str:
    """One of pydantic's faults as a person reads it: the key, and what is wrong with it."""
    key = ".".join(map(str, fault["loc"]))
    words = fault["msg"].removeprefix("Value error, RATCHET_PODS: ")
    return f"{key}: {words}" if key else words


SETTINGS = read_settings(os.environ)
