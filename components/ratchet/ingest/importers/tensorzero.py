"""Import TensorZero feedback, from bodies of POST /feedback or its tables, and the inferences that it is on.

Metrics named `comment` and `demonstration` are reserved: free text, and a corrected output. Ids are UUIDv7, which give
the time if a row has none.
"""

from typing import Any, Literal
from uuid import UUID

from pydantic import Field

from ratchet.ingest.importers.assessment import Assessment
from ratchet.ingest.importers.chat import answer_of, prompt_of, unpacked
from ratchet.ingest.importers.importer import Importer
from ratchet.ingest.importers.intake import Intake, Unmappable
from ratchet.ingest.importers.shape import Shape, Time

UUID_TIME_BITS = 48  # of 128, the first: Unix milliseconds (RFC 9562, 5.7)


class Feedback(Shape):
    id: str | None = None
    metric_name: str | None = None
    type: Literal["boolean", "float", "comment", "demonstration"] | None = None
    value: Any
    inference_id: str | None = None
    episode_id: str | None = None
    target_id: str | None = None
    target_type: Literal["inference", "episode", "inference_id", "episode_id"] | None = None
    tags: dict[str, str] = Field({})
    timestamp: Time | None = None

    @property
    def metric(self) -> str:
        """The metric's name, which the tables of comments and demonstrations do not have."""
        if self.metric_name or self.type:
            return self.metric_name or str(self.type)
        return "comment" if self.target_type else "demonstration"


class Inference(Shape):
    id: str
    function_name: str
    variant_name: str
    episode_id: str
    input: Any
    output: Any
    tags: dict[str, str] = Field({})
    timestamp: Time | None = None
    processing_time_ms: int | None = None


def read(intake: Intake, record: bytes) -> None:
    given = Feedback.model_validate_json(record)
    target = given.inference_id or given.target_id
    if not target or given.target_type in ("episode", "episode_id"):
        raise Unmappable("not_one_answer", "the feedback is on an episode")
    at = given.timestamp if given.timestamp is not None else _time_of(given.id or target)
    is_score = isinstance(given.value, bool | int | float)
    Assessment(
        key=given.id or f"{target}/{given.metric}",
        interaction_id=f"tensorzero:{target}",
        name=given.metric,
        created_at=intake.time(at, later_s=1),
        source="human",
        by=given.tags.get("user_id") or given.tags.get("author"),
        values=(given.value,) if is_score else (),
        comment=given.value if given.metric == "comment" and isinstance(given.value, str) else None,
        correction=given.value if given.metric == "demonstration" else None,
        source_fields=given.unknown | {"tags": given.tags},
    ).land(intake)


def read_trace(intake: Intake, record: bytes) -> None:
    inference = Inference.model_validate_json(record)
    output = unpacked(inference.output)
    is_json = isinstance(output, dict) and "raw" in output  # a JSON function: its answer is the text itself
    at = inference.timestamp if inference.timestamp is not None else _time_of(inference.id)
    user = inference.tags.get("user_id")
    intake.serve(
        interaction_id=f"tensorzero:{inference.id}",
        conversation_id=f"tensorzero:{inference.episode_id}",
        messages=prompt_of(inference.input),
        response=answer_of([{"role": "assistant", "content": output["raw"]}] if is_json else output),
        base_model=f"{inference.function_name}/{inference.variant_name}",
        served_at=intake.time(at),
        latency_ms=inference.processing_time_ms or 0,
        source_fields=inference.unknown | {"tags": inference.tags},
        **({"subject_id": intake.person(user)} if user else {}),
    )


def _time_of(name: str) -> float | None:
    try:
        number = UUID(name)
    except ValueError:
        return None
    return (number.int >> (128 - UUID_TIME_BITS)) / 1000 if number.version == 7 else None


IMPORTER = Importer(
    name="tensorzero",
    about="TensorZero feedback (boolean and float metrics, comments, demonstrations)",
    file="JSONL of the tables *Feedback, or of the bodies of POST /feedback",
    read=read,
    traces_file="JSONL of the tables ChatInference and JsonInference",
    read_trace=read_trace,
)
