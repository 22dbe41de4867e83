"""Every day: do recent votes look like those before them? If not, say so, and train."""

from datetime import timedelta

from airflow.sdk import DAG, get_current_context, task

from _common.assets import DRIFT, announce
from _common.policies import START, Tag, deadline, defaults
from _common.tasks import command

DOC = """
## When it fails

1. No user notices: it only watches. Read the last lines of the task's log, fix the cause, clear the task.
2. It never fails because of drift. Drift is its finding: the task `report_drift` runs, and the asset `drift` starts
   `train_adapter`.

## What it does

`ratchet drift` compares the last week of triplets with the four weeks before: kinds of feedback and length of prompts
by population stability index, approval by two proportions. It speaks of drift when a difference is both large and
surely no accident of the sample; with too few votes it says that it cannot tell.
"""

with DAG(
    dag_id="watch_drift",
    schedule="30 3 * * *",
    start_date=START,
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(hours=4),
    deadline=deadline(timedelta(hours=3)),
    default_args=defaults(),
    tags=[Tag.MONITORING, Tag.NO_USER_NOTICES],
    doc_md=DOC,
):

    @task.short_circuit
    def has_drifted(found: dict) -> bool:
        print(found["why"])
        return found["drifted"]

    @task(outlets=[DRIFT])
    def report_drift(found: dict) -> None:
        announce(get_current_context(), DRIFT, found["digest"], found)

    measured = command("measure_drift", "drift")
    has_drifted(measured.output) >> report_drift(measured.output)
