"""After a passing verdict: ask a person, then release, and stay until the adapter is champion or put back."""

from datetime import timedelta

from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import DAG, Param, PartitionedAssetTimetable, get_current_context, task

from _common.assets import ADAPTER, announced, newest
from _common.gate_report import gate_report
from _common.policies import START, Tag, deadline, defaults
from _common.settings import SETTINGS
from _common.tasks import command, step

DOC = """
## When it fails

1. Users are served all the while: by the champion, or by the canary while the votes allow it.
2. *has no end within release_adapter.timeout_s*: the canary is still undecided. Clear the task to wait on; or
   `ratchet abort WHY` rolls it back now. `reconcile_releases` goes on either way.
3. *needs a fix from you*: Git, the cluster or the registry refused. Fix it and clear the task: it takes the
   open release up where it is, and never asks twice.
4. `ratchet releases` prints how every release ended. `rolled_back` is no failure of this DAG: it did its work.

## What it does

An event of `adapter` starts a run; one whose verdict is not a pass ends it at once. In production `approve` then waits
for a person, under *Required actions*, with the gate's report; after three days without an answer it is a no. A yes
goes into the ledger (`record_approval`), where `release_adapter.approval: person` of ratchet.yaml demands it.
`release_adapter` asks in the ledger, commits to Git, and watches the canary. One run at a time, and the ledger admits
one open release, for every caller.
"""

with DAG(
    dag_id="release_adapter",
    schedule=PartitionedAssetTimetable(assets=ADAPTER),
    start_date=START,
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(days=5),
    deadline=deadline(timedelta(days=4)),
    default_args=defaults(),
    tags=[Tag.RELEASE, Tag.USERS_FEEL_IT],
    doc_md=DOC,
):

    @task.short_circuit(inlets=[ADAPTER])
    def choose_adapter() -> dict | None:
        """The adapter whose event started this run; by hand, the newest."""
        context = get_current_context()
        adapter = announced(context, ADAPTER) or newest(context, ADAPTER)
        if adapter is None:
            raise ValueError("there is no adapter yet; run train_adapter first")
        print(f"adapter {adapter['digest'][:12]}: the offline verdict is {adapter['verdict']}")
        return {**adapter, "report": gate_report(adapter)} if adapter["verdict"] == "pass" else None

    adapter = choose_adapter()
    released = step("release_adapter", train_adapter=adapter, evaluate_adapter=adapter, register_adapter=adapter)
    if SETTINGS.needs_approval:
        approve = ApprovalOperator(
            task_id="approve",
            subject="Release adapter {{ ti.xcom_pull('choose_adapter')['digest'][:12] }}?",
            body="{{ ti.xcom_pull('choose_adapter')['report'] }}",
            params={"why": Param("", type="string", description="The reason, for the ledger.")},
            defaults="Reject",
            response_timeout=timedelta(days=3),
            execution_timeout=None,
        )
        record_approval = command(
            "record_approval",
            "approve",
            "--who={{ (ti.xcom_pull('approve')['responded_by_user'] or {}).get('name') or 'a person in Airflow' }}",
            "--",
            "{{ ti.xcom_pull('choose_adapter')['manifests']['register_adapter'] }}",
            "{{ (ti.xcom_pull('approve')['params_input'] or {}).get('why') or 'approved in Airflow' }}",
            has_result=False,
        )
        adapter >> approve >> record_approval >> released
