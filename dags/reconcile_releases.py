"""Every five minutes: traffic, registry, Git and ledger are made to agree."""

from datetime import timedelta

from airflow.sdk import DAG

from _common.policies import START, Tag, deadline, defaults
from _common.tasks import command

DOC = """
## When it fails

1. One failed run is no trouble: the next observes everything again and does the rest.
2. Runs that keep failing leave places that disagree. Read the message: it names what could not be reached, Git, the
   cluster, the registry or the lake.
3. `ratchet releases` prints the ledger, and `ratchet abort WHY` takes a bad release back without waiting for votes.

## What it does

One pass of the reconciler: it observes, decides with a pure function, and acts where something differs, each act safe
to repeat. Where the reconciler runs as a service too, a lease lets one of them act; this DAG is then the spare.
"""

with DAG(
    dag_id="reconcile_releases",
    schedule="*/5 * * * *",
    start_date=START,
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(minutes=30),
    deadline=deadline(timedelta(minutes=20)),
    default_args=defaults(),
    tags=[Tag.RELEASE, Tag.USERS_FEEL_IT],
    doc_md=DOC,
):
    command("reconcile", "reconcile", "--once", has_result=False)
