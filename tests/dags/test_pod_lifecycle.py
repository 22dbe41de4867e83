"""What becomes of pods: Airflow's own operator and trigger against an API server that notes what is asked of it."""

import asyncio
import gc
import json
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

pytest.importorskip("airflow.sdk", reason="runs in Airflow's environment: .venv-airflow/bin/pytest tests/dags")

from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator
from airflow.providers.common.compat.sdk import AirflowException
from airflow.sdk import DAG
from airflow.sdk.bases.operator import ExecutorSafeguard
from airflow.sdk.exceptions import TaskDeferred

from _common.failures import Broke, Lost, Refused
from _common.pod_operator import Pod
from _common.settings import Settings, read_settings
from _common.tasks import step
from support.airflow_kubernetes import RUNNING, SIDECAR, WAITING, Cluster, kubernetes, terminated

ROOT = Path(__file__).resolve().parents[2]
RESULT = {"step": "build_datasets", "uri": "manifests/build_datasets/1.json", "digest": "d", "outputs": {}}
# The provider's clients leave connections for the garbage collector, which may come in any test.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")

LONG_AGO = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    with kubernetes() as (found, extra):
        monkeypatch.setenv("AIRFLOW_CONN_KUBERNETES_DEFAULT", json.dumps({"conn_type": "kubernetes", "extra": extra}))
        found.result = json.dumps(RESULT)
        yield found
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture
def settings(pods_file: Path, tmp_path: Path) -> Settings:
    """As production's, but a pod has one second to find a node, and one to start."""
    path = tmp_path / "pods.json"
    impatient = {"schedule_timeout_s": 1, "startup_timeout_s": 1}
    path.write_text(json.dumps({**json.loads(pods_file.read_text()), **impatient}))
    return read_settings({"RATCHET_EXECUTION": "kubernetes", "RATCHET_PODS": str(path)})


class Task:
    """One task instance over its tries: what Airflow keeps of it, and what it calls."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.store: dict[str, Any] = {}
        self.started_at = datetime.now(UTC)
        self.tries = 0

    def next_try(self, kind: type[KubernetesPodOperator] = Pod) -> KubernetesPodOperator:
        """The operator as a new process has it; with `kind`, the provider's own instead of ours."""
        with DAG("d", schedule=None, start_date=LONG_AGO):
            made = step("build_datasets", self.settings)
        made.__class__ = kind
        made.startup_check_interval_seconds = 0.05
        made.poll_interval = 0.05
        self.tries += 1
        return made

    @property
    def context(self) -> Any:
        ti = SimpleNamespace(
            dag_id="d",
            task_id="build_datasets",
            map_index=-1,
            try_number=self.tries,
            start_date=self.started_at,
            xcom_push=lambda *_, **__: None,
        )
        return {"ti": ti, "run_id": "r", "dag": None, "task_state_store": Store(self.store)}


class Store:
    """Airflow's store of a task instance's state, which outlives its tries."""

    def __init__(self, values: dict[str, Any]) -> None:
        self.get, self.set = values.get, values.__setitem__


def execute(operator: KubernetesPodOperator, context: Any) -> Any:
    """The result, or the trigger that it waits for; called as the task runner calls it."""
    key = f"{type(operator).__name__}__sentinel"
    try:
        return operator.execute(context, **{key: ExecutorSafeguard.sentinel_value})
    except TaskDeferred as deferred:
        return deferred.trigger


def wait(trigger: Any) -> dict[str, Any]:
    """The event that the triggerer gets from the provider's trigger."""

    async def first() -> dict[str, Any]:
        events = trigger.run()
        try:
            event: dict[str, Any] = (await anext(events)).payload
            return event
        finally:
            await events.aclose()

    return asyncio.run(first())


def no_node(cluster: Cluster, task: Task) -> None: ...


def no_image_in_time(cluster: Cluster, task: Task) -> None:
    cluster.set(cluster.created(), WAITING, "Pending", WAITING)


def no_such_image(cluster: Cluster, task: Task) -> None:
    reason = {"waiting": {"reason": "InvalidImageName", "message": "couldn't parse image name"}}
    cluster.set(cluster.created(), reason, "Pending", WAITING)


def no_end(cluster: Cluster, task: Task) -> None:
    cluster.set(cluster.created(), RUNNING)
    task.started_at = LONG_AGO


@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        (no_node, "too long to be scheduled"),
        (no_image_in_time, "too long to start"),
        (no_such_image, "couldn't parse image name"),
        (no_end, "execution_timeout deadline"),
    ],
)
def test_a_pod_that_is_given_up_is_deleted_before_the_next_try(
    cluster: Cluster, settings: Settings, trouble: Any, words: str
) -> None:
    task = Task(settings)
    operator = task.next_try()
    trigger = execute(operator, task.context)
    trouble(cluster, task)
    trigger.trigger_kwargs = {"_execution_deadline": deadline_of(operator, task)}
    event = wait(trigger)
    with pytest.raises(Lost, match=words):
        operator.trigger_reentry(task.context, event)
    assert cluster.names("delete") == cluster.names("create")
    assert cluster.followed == []
    task.started_at = datetime.now(UTC)
    execute(task.next_try(), task.context)
    assert len(cluster.pods) == 1
    assert len(cluster.names("create")) == 2


def deadline_of(operator: KubernetesPodOperator, task: Task) -> float:
    """When the provider's trigger stops waiting: it is told at deferral, and reads a clock."""
    return task.started_at.timestamp() + operator.execution_timeout.total_seconds()


def test_the_provider_alone_keeps_a_pod_that_was_given_up(cluster: Cluster, settings: Settings) -> None:
    """Why `Pod` exists; when this fails, the provider has changed."""
    task = Task(settings)
    operator = task.next_try(KubernetesPodOperator)
    event = wait(execute(operator, task.context))
    assert event["status"] == "timeout"
    with pytest.raises(AirflowException):
        operator.trigger_reentry(task.context, event)
    execute(task.next_try(KubernetesPodOperator), task.context)
    assert cluster.names("delete") == []
    assert len(cluster.pods) == 2


def test_what_one_try_could_not_delete_the_next_one_does(cluster: Cluster, settings: Settings) -> None:
    task = Task(settings)
    operator = task.next_try()
    event = wait(execute(operator, task.context))
    cluster.refused = {"delete"}
    with pytest.raises(Lost):
        operator.trigger_reentry(task.context, event)
    left = cluster.created()
    assert list(cluster.pods) == [left]
    cluster.refused = set()
    execute(task.next_try(), task.context)
    assert list(cluster.pods) == [cluster.created()]
    assert cluster.created() != left


@pytest.mark.parametrize("is_known", [True, False])
def test_a_pod_that_still_works_when_its_worker_died_is_taken_up(
    cluster: Cluster, settings: Settings, is_known: bool
) -> None:
    """By what Airflow keeps of the task, and if the worker died before it kept anything, by the pod's labels."""
    task = Task(settings)
    first = execute(task.next_try(), task.context)
    cluster.set(cluster.created(), RUNNING)
    if not is_known:
        task.store.clear()
    second = execute(task.next_try(), task.context)
    assert second.pod_name == first.pod_name
    assert cluster.names("create") == [first.pod_name]
    assert cluster.names("delete") == []


def test_a_pod_that_ended_while_no_worker_lived_keeps_its_result(cluster: Cluster, settings: Settings) -> None:
    task = Task(settings)
    execute(task.next_try(), task.context)
    cluster.set(cluster.created(), terminated(0))
    assert execute(task.next_try(), task.context) == RESULT
    assert cluster.names("delete") == cluster.names("create")


def test_the_provider_alone_drops_the_result_of_a_pod_that_ended_early(cluster: Cluster, settings: Settings) -> None:
    """Why `Pod.execute` exists; when this fails, the provider has changed."""
    task = Task(settings)
    execute(task.next_try(KubernetesPodOperator), task.context)
    cluster.set(cluster.created(), terminated(0))
    assert execute(task.next_try(KubernetesPodOperator), task.context) is None


def test_a_pod_that_ended_in_its_last_moment_keeps_its_result(cluster: Cluster, settings: Settings) -> None:
    task = Task(settings)
    operator = task.next_try()
    trigger = execute(operator, task.context)
    cluster.set(cluster.created(), terminated(0))
    trigger.trigger_kwargs = {"_execution_deadline": LONG_AGO.timestamp()}
    event = wait(trigger)
    assert event["status"] == "timeout"
    assert operator.trigger_reentry(task.context, event) == RESULT


@pytest.mark.parametrize(("exit_code", "kind"), [(2, Refused), (1, Broke), (137, Lost)])
def test_a_pod_that_failed_is_kept_for_its_log_and_not_taken_up_again(
    cluster: Cluster, settings: Settings, exit_code: int, kind: type[Exception]
) -> None:
    task = Task(settings)
    operator = task.next_try()
    trigger = execute(operator, task.context)
    cluster.set(cluster.created(), terminated(exit_code, "error: 7 of 9 rows"))
    event = wait(trigger)
    with pytest.raises(kind, match="7 of 9 rows"):
        operator.trigger_reentry(task.context, event)
    assert cluster.names("delete") == []
    execute(task.next_try(), task.context)
    assert len(cluster.names("create")) == 2


def test_a_pod_whose_result_cannot_be_read_is_lost_whatever_its_exit_code(cluster: Cluster, settings: Settings) -> None:
    task = Task(settings)
    operator = task.next_try()
    trigger = execute(operator, task.context)
    cluster.set(cluster.created(), terminated(0), "Failed", terminated(137))
    event = wait(trigger)
    with pytest.raises(Lost, match=SIDECAR):
        operator.trigger_reentry(task.context, event)


def test_airflow_may_do_all_that_a_pods_life_takes(cluster: Cluster, settings: Settings) -> None:
    """As the Role in the steps' namespace has it."""
    task = Task(settings)
    operator = task.next_try()
    trigger = execute(operator, task.context)
    cluster.set(cluster.created(), terminated(0))
    assert operator.trigger_reentry(task.context, wait(trigger)) == RESULT
    late = Task(settings)
    late.started_at -= timedelta(days=9)
    operator = late.next_try()
    with pytest.raises(Lost):
        operator.trigger_reentry(late.context, wait(execute(operator, late.context)))
    asked = {(resource, verb) for verb, resource, _ in cluster.calls}
    role = next(yaml.safe_load_all((ROOT / "infra" / "airflow" / "cluster.yaml").read_text()))
    allowed = {(kind, verb) for rule in role["rules"] for kind in rule["resources"] for verb in rule["verbs"]}
    assert asked <= allowed
    assert {("pods", "create"), ("pods", "delete"), ("pods", "patch"), ("pods/exec", "get")} <= asked
