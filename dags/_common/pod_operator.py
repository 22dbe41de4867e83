"""The operator of a pod: deferred while it runs, found again if the worker dies, gone before another try follows it."""

from contextlib import suppress
from typing import Any

from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator
from airflow.providers.cncf.kubernetes.utils.container import container_is_running
from airflow.providers.common.compat.sdk import AirflowException
from airflow.sdk import Context
from kubernetes.client import ApiException
from kubernetes.client import models as k8s
from urllib3.exceptions import HTTPError

from _common.failures import Lost, failure
from _common.lineage import ReportsLineage

# A pod in these has ended, whatever is known of its containers: one that was evicted has none.
ENDED_PHASES = ("Succeeded", "Failed")


class Pod(ReportsLineage, KubernetesPodOperator):
    """A pod whose failures carry the exit code's class and the container's last words.

    Provider 10.25 keeps a pod that did not succeed, for its log. That is right for one that has ended. One that has
    not, because no node came or its time was up, would wait or run on beside the pod of the next try: it is deleted.
    """

    template_fields = (*KubernetesPodOperator.template_fields, "input_digests")

    def __init__(self, *, lake: str, input_digests: dict[str, str] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.lake = lake
        self.input_digests = input_digests or {}
        self.result: dict[str, Any] | None = None

    def execute(self, context: Context) -> dict[str, Any] | None:
        """Create the pod, or find that of a try whose worker died, and defer.

        Only a pod that has ended by then is not deferred. The provider reads its result in `trigger_reentry`, and
        drops it; so it is kept there, and returned here.
        """
        super().execute(context)
        return self.result

    def trigger_reentry(self, context: Context, event: dict[str, Any]) -> dict[str, Any] | None:
        """The result of the pod that the event is about. Raises one of `_common.failures`."""
        command = f"ratchet {self.arguments[0]}"
        try:
            if event["status"] == "timeout":
                event = self._end(command, event)
            self.result = super().trigger_reentry(context, event)
        except AirflowException as error:
            # Where a pod never started, only the trigger knows why.
            words = str(error) if event["status"] == "success" else f"{event.get('message')}\n{error}"
            raise pod_failure(self.pod, self.base_container_name, command, words) from error
        if self.do_xcom_push and self.result is None:
            raise Lost(f"the pod of {self.task_id} ended well, but was gone before its result was read")
        return self.result

    def get_or_create_pod(self, pod_request_obj: k8s.V1Pod, context: Context) -> k8s.V1Pod:
        """As the provider does, once no pod is left that an earlier try gave up but could not delete."""
        earlier = self.client.list_namespaced_pod(
            pod_request_obj.metadata.namespace,
            label_selector=self._build_find_pod_label_selector(context, exclude_checked=False),
        )
        for pod in earlier.items:
            is_given_up = (pod.metadata.labels or {}).get(self.POD_CHECKED_KEY) == "True"
            if is_given_up and not has_ended(pod, self.base_container_name):
                self.log.info("Deleting pod %s, which an earlier try gave up", pod.metadata.name)
                self.pod_manager.delete_pod(pod)
        return super().get_or_create_pod(pod_request_obj, context)

    def process_pod_deletion(self, pod: k8s.V1Pod, *, reraise: bool = True) -> bool:
        """Delete what succeeded, as the provider does, and what was given up before it ended. Return whether it did."""
        if pod is None or has_ended(pod, self.base_container_name):
            return bool(super().process_pod_deletion(pod, reraise=reraise))
        return self._delete(pod)

    def _end(self, command: str, event: dict[str, Any]) -> dict[str, Any]:
        """Delete the pod whose time is up, and raise Lost; return the event to go on with if it has ended by itself.

        Not left to the provider: that would first follow the log of a container that still runs, until it ends.
        """
        try:
            pod = self.hook.get_pod(event["name"], event["namespace"])
        except ApiException as error:
            if error.status != 404:
                raise
            return event  # the provider says what to say of a pod that is gone
        if has_ended(pod, self.base_container_name):
            return {**event, "status": "error"}  # of which the provider makes a success where the exit code says so
        if container_is_running(pod, self.base_container_name):
            with suppress(HTTPError, ApiException):
                self._write_logs(pod)
        self.patch_already_checked(pod, reraise=False)  # so that the next try deletes it if this one cannot
        self._delete(pod)
        raise Lost(f"{command} was given up, and its pod deleted:\n{event['message']}")

    def _delete(self, pod: k8s.V1Pod) -> bool:
        try:
            self.pod_manager.delete_pod(pod)
        except (HTTPError, ApiException):
            self.log.exception("Pod %s could not be deleted; the next try does it", pod.metadata.name)
            return False
        return True


def has_ended(pod: k8s.V1Pod, container: str) -> bool:
    """Whether the container's work is over. The sidecar with the result may still wait to be read."""
    if pod.status is None:
        return False
    return pod.status.phase in ENDED_PHASES or _terminated(pod, container) is not None


def pod_failure(pod: k8s.V1Pod | None, container: str, command: str, words: str) -> Exception:
    """The exception for a pod that failed: by its container's exit code, if it had the time to have one.

    With exit code 0 the command did its work, and the result was lost on the way: the next try finds the work done.
    """
    ended = _terminated(pod, container)
    if ended is None or ended.exit_code == 0:
        return failure(command, None, words)
    return failure(command, ended.exit_code, ended.message or words)


def _terminated(pod: k8s.V1Pod | None, container: str) -> k8s.V1ContainerStateTerminated | None:
    statuses = (pod.status.container_statuses if pod is not None and pod.status else None) or []
    return next((one.state.terminated for one in statuses if one.name == container and one.state), None)
