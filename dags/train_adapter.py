"""On enough new triplets, on drift, or a week after the last: train, judge and register an adapter."""

from datetime import UTC, datetime, timedelta

from airflow.sdk import DAG, Param, PartitionedAssetTimetable, get_current_context, task

from _common.assets import ADAPTER, DATASET, DRIFT, announce, announced, newest
from _common.need import why_train
from _common.policies import START, Tag, deadline, defaults
from _common.settings import SETTINGS
from _common.tasks import step

DOC = """
## When it fails

1. `train_adapter` or `evaluate_adapter` *was killed*: out of memory, or its node went. Each try resumes at the last
   checkpoint, so clear the task; if it dies in the same place, lower `train_adapter.pass_tokens`.
2. *needs a fix from you*: do what the message says, then clear the task. The champion serves on meanwhile.
3. A late run: look at the pool `gpu`. Slots that are full with nothing running are tasks to clear.
4. To train now: trigger the DAG by hand with `force`.

## What it does

Each new event of `dataset` or `drift` starts a run. `choose_dataset` takes the newest dataset and goes on when it has
`min_new_triplets` more than the last trained one, when drift was found, or when a week has passed and there is
anything new; otherwise the run ends there, in a second, with the reason in its log. One run at a time: a second
waits, then looks again, and finds the work done. The asset `adapter` gets the digest, the verdict, and its numbers.
"""

with DAG(
    dag_id="train_adapter",
    schedule=PartitionedAssetTimetable(assets=DATASET | DRIFT),
    start_date=START,
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(hours=42),  # what its steps may take together, with their waits for nodes
    deadline=deadline(timedelta(hours=24)),
    default_args=defaults(),
    params={
        "force": Param(
            False, type="boolean", description="Train on the newest dataset, even without enough new triplets."
        ),
        "min_new_triplets": Param(SETTINGS.min_new_triplets, type="integer", minimum=1),
    },
    tags=[Tag.TRAINING, Tag.USERS_WAIT],
    doc_md=DOC,
):

    @task.short_circuit(inlets=[DATASET, ADAPTER])
    def choose_dataset(params: dict) -> dict | None:
        context = get_current_context()
        dataset, last = newest(context, DATASET), newest(context, ADAPTER)
        if dataset is None:
            raise ValueError("there is no dataset yet; run collect_feedback first")
        drift = announced(context, DRIFT)
        reason = (
            "asked for by hand"
            if params["force"]
            else why_train(
                dataset, last, datetime.now(UTC), min_new=params["min_new_triplets"], drift=drift and drift["why"]
            )
        )
        print(f"dataset {dataset['digest'][:12]}: {reason or 'nothing to train for'}")
        return {**dataset, "reason": reason} if reason else None

    @task(outlets=[ADAPTER])
    def publish_adapter(dataset: dict, trained: dict, evaluated: dict, registered: dict) -> None:
        digest = trained["outputs"]["adapter"]["digest"]
        results = (trained, evaluated, registered)
        event = {
            "digest": digest,
            "verdict": registered["decision"],
            "why": evaluated["why"],
            "checks": evaluated["checks"],
            "reason": dataset["reason"],
            "dataset_digest": dataset["digest"],
            "triplets": dataset["triplets"],
            "manifests": {result["step"]: result["uri"] for result in results},
            "digests": {result["step"]: result["digest"] for result in results},
        }
        announce(get_current_context(), ADAPTER, digest, event)

    dataset = choose_dataset()
    trained = step("train_adapter", build_datasets=dataset)
    evaluated = step("evaluate_adapter", build_datasets=dataset, train_adapter=trained)
    registered = step("register_adapter", build_datasets=dataset, train_adapter=trained, evaluate_adapter=evaluated)
    publish_adapter(dataset, trained.output, evaluated.output, registered.output)
