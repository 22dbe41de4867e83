"""Import LangSmith feedback, and the runs that it is on."""

from typing import Any

from ratchet.events import Source
from ratchet.ingest.importers.assessment import Assessment
from ratchet.ingest.importers.chat import answer_of, prompt_of, unpacked
from ratchet.ingest.importers.importer import Importer
from ratchet.ingest.importers.intake import Intake, Unmappable
from ratchet.ingest.importers.scores import Value
from ratchet.ingest.importers.shape import Shape, Time

JUDGES: dict[str, Source] = {"model": "model", "auto_eval": "model"}  # other sources (`api`, `app`) are people
ANSWERING = ("llm", "chain")
THREAD_KEYS = ("session_id", "thread_id", "conversation_id")  # LangSmith's own names for a thread in the metadata


class FeedbackSource(Shape):
    type: str | None = None
    user_id: str | None = None


class Feedback(Shape):
    id: str
    run_id: str | None = None
    trace_id: str | None = None
    key: str
    score: float | bool | None = None
    value: Any = None
    comment: str | None = None
    correction: str | dict[str, Any] | None = None
    feedback_source: FeedbackSource | None = None
    feedback_source_type: str | None = None
    created_at: Time
    modified_at: Time | None = None


class Run(Shape):
    id: str
    trace_id: str | None = None
    run_type: str
    inputs: Any = None
    outputs: Any = None
    extra: dict[str, Any] | str | None = None
    start_time: Time


def read(intake: Intake, record: bytes) -> None:
    given = Feedback.model_validate_json(record)
    target = given.run_id or given.trace_id
    if not target:
        raise Unmappable("not_one_answer", "the feedback is on no run")
    origin = given.feedback_source
    label: Value | None = given.value if isinstance(given.value, bool | int | float | str) else None
    Assessment(
        key=given.id,
        interaction_id=f"langsmith:{target}",
        name=given.key,
        created_at=given.created_at if given.modified_at is None else given.modified_at,
        source=JUDGES.get(given.feedback_source_type or (origin and origin.type) or "", "human"),
        by=origin.user_id if origin else None,
        values=(given.score, label),
        comment=given.comment,
        correction=given.correction or None,
        source_fields=given.unknown,
    ).land(intake)


def read_trace(intake: Intake, record: bytes) -> None:
    run = Run.model_validate_json(record)
    if run.run_type not in ANSWERING:
        return intake.skip("interactions")
    extra = unpacked(run.extra)
    metadata = extra.get("metadata") if isinstance(extra, dict) else None
    known: dict[str, Any] = metadata if isinstance(metadata, dict) else {}
    thread = next((known[key] for key in THREAD_KEYS if known.get(key)), None)
    intake.serve(
        interaction_id=f"langsmith:{run.id}",
        conversation_id=intake.chat(thread),
        messages=prompt_of(run.inputs),
        response=answer_of(run.outputs),
        base_model=str(known.get("ls_model_name") or "unknown"),
        served_at=run.start_time,
        source_fields=run.unknown,
    )
    return None


IMPORTER = Importer(
    name="langsmith",
    about="LangSmith feedback (scores, categories, corrections, comments)",
    file="JSONL of Client.list_feedback() or pages of GET /api/v1/feedback",
    read=read,
    traces_file="runs: JSONL of Client.list_runs(), or the Parquet of a bulk export",
    read_trace=read_trace,
)
