"""What every DAG and task has in common: owner, tags, retries, deadlines."""

from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from airflow.sdk import DeadlineAlert, ExceptionRetryPolicy, RetryAction, RetryRule
from airflow.sdk.definitions.callback import SyncCallback
from airflow.sdk.definitions.deadline import DeadlineReference

from _common.failures import Lost, Refused
from _common.notifier import Notify

OWNER = "ratchet-operators"
START = datetime(2026, 1, 1, tzinfo=UTC)


class Tag(StrEnum):
    """Every DAG has one stage and one impact."""

    DATA = "stage:data"
    TRAINING = "stage:training"
    RELEASE = "stage:release"
    MONITORING = "stage:monitoring"
    USERS_FEEL_IT = "impact:users-feel-it"
    USERS_WAIT = "impact:improvement-waits"
    NO_USER_NOTICES = "impact:no-user-notices"


RETRY_POLICY = ExceptionRetryPolicy(
    rules=[
        RetryRule(Refused, RetryAction.FAIL, reason="a person must fix it first"),
        RetryRule(Lost, RetryAction.RETRY, timedelta(seconds=30), reason="the next try resumes"),
    ]
)


def step_policy() -> dict[str, Any]:
    return {"retries": 3, "retry_policy": RETRY_POLICY}


def defaults() -> dict[str, Any]:
    """For `default_args`. Tasks that do work of their own are small; steps bring their own timeout."""
    return {
        "owner": OWNER,
        "retries": 2,
        "retry_delay": timedelta(minutes=1),
        "retry_exponential_backoff": 2.0,  # a multiplier since 3.3; the old True would keep the delay constant
        "max_retry_delay": timedelta(minutes=15),
        "execution_timeout": timedelta(minutes=5),
        "on_failure_callback": Notify(),
    }


def deadline(after: timedelta) -> DeadlineAlert:
    """An alert when a run has no end so long after it was queued.

    It runs in the executor: the triggerer does not have the DAG bundle on its path, so an AsyncCallback from here
    could not be imported.
    """
    return DeadlineAlert(
        reference=DeadlineReference.DAGRUN_QUEUED_AT, interval=after, callback=SyncCallback(Notify, {"what": "is late"})
    )
