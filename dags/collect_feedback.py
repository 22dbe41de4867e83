"""Every hour: votes become triplets, triplets a dataset."""

from datetime import timedelta

from airflow.sdk import DAG, CronPartitionTimetable, get_current_context, task

from _common.assets import DATASET, announce
from _common.policies import START, Tag, deadline, defaults
from _common.settings import SETTINGS
from _common.tasks import step

DOC = """
## When it fails

1. Read the failed task's log from its end: the last lines are the step's own message.
2. *needs a fix from you* (not retried): most often `validate_triplets` with too many bad rows. The quarantine
   in the lake (`quarantine/`) has each row with its reason. Fix the sender, or raise
   `validate_triplets.max_bad_share`; then clear the task.
3. *was killed*: all tries ran out of memory or lost their node. Raise the step's
   `needs` (`ratchet.needs`) and run `make golden`.
4. Nothing is lost meanwhile: the next hour collects what this one did not.

## What it does

One run an hour, one partition an hour. Collection goes by what has landed since the last one, not by the clock, and
counts each event once. So a run that failed needs no repair, and **a backfilled hour finds nothing new**: it makes
the dataset as of now, with the same digest if no vote came since. A backfill is right after the lake was restored.

Each run updates the asset `dataset`, with the digest of the dataset and the number of its triplets.
"""

with DAG(
    dag_id="collect_feedback",
    schedule=CronPartitionTimetable("0 * * * *", timezone="UTC", run_offset=-1, key_format="%Y-%m-%dT%H"),
    start_date=START,
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(hours=4),
    deadline=deadline(timedelta(hours=1)),
    default_args=defaults(),
    tags=[Tag.DATA, Tag.USERS_WAIT],
    doc_md=DOC,
):

    @task(outlets=[DATASET])
    def publish_dataset(validated: dict, built: dict) -> None:
        made = built["outputs"]["dataset"]
        announce(
            get_current_context(),
            DATASET,
            made["digest"],
            {
                "digest": made["digest"],
                "rows": made["rows"],
                "triplets": validated["outputs"]["valid"]["rows"],
                "manifests": {"build_datasets": built["uri"]},
                "digests": {"build_datasets": built["digest"]},
            },
        )

    # A lake has one scheduler; a run that a person starts is refused by none.
    scheduler = f"--scheduler={{{{ '{SETTINGS.scheduler}' if dag_run.run_type == 'scheduled' else '' }}}}"
    collected = step("collect_triplets", options=[scheduler])
    validated = step("validate_triplets", collect_triplets=collected)
    built = step("build_datasets", validate_triplets=validated)
    publish_dataset(validated.output, built.output)
