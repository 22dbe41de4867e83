"""Import Langfuse scores, and their observations or traces, from its blob storage export or public API.

A score on a trace applies to the answer of its root observation, which therefore also lands under the trace's id.
"""

from typing import Any, Literal

from pydantic import ConfigDict
from pydantic.alias_generators import to_camel

from ratchet.events import Source
from ratchet.ingest.importers.assessment import Assessment
from ratchet.ingest.importers.chat import answer_of, prompt_of
from ratchet.ingest.importers.importer import Importer
from ratchet.ingest.importers.intake import Intake, Unmappable
from ratchet.ingest.importers.scores import Value
from ratchet.ingest.importers.shape import Shape, Time

ANSWERING = ("GENERATION", "AGENT", "CHAIN")
JUDGES: dict[str, Source] = {"ANNOTATION": "human", "API": "human", "EVAL": "model"}


class ScoreRecord(Shape):
    """Exports write snake_case, the API camelCase."""

    model_config = ConfigDict(alias_generator=to_camel, validate_by_name=True, validate_by_alias=True)

    id: str
    trace_id: str | None = None


class Score(ScoreRecord):
    name: str
    data_type: Literal["NUMERIC", "BOOLEAN", "CATEGORICAL", "TEXT", "CORRECTION"] = "NUMERIC"
    value: float | str | None = None
    string_value: str | None = None
    source: Literal["API", "ANNOTATION", "EVAL"]
    comment: str | None = None
    observation_id: str | None = None
    author_user_id: str | None = None
    timestamp: Time
    updated_at: Time | None = None


class Observation(ScoreRecord):
    """An observation, or (without `type`) a trace of the older export."""

    type: str | None = None
    parent_observation_id: str | None = None
    input: Any = None
    output: Any = None
    user_id: str | None = None
    provided_model_name: str | None = None
    model: str | None = None
    start_time: Time | None = None
    timestamp: Time | None = None
    session_id: str | None = None


def read(intake: Intake, record: bytes) -> None:
    score = Score.model_validate_json(record)
    target = score.observation_id or score.trace_id
    if not target:
        raise Unmappable("not_one_answer", "the score is on a session or a dataset run")
    text = score.string_value or (score.value if isinstance(score.value, str) else None)
    number = None if isinstance(score.value, str) else score.value
    values: tuple[Value | None, ...] = ()
    if score.data_type == "CATEGORICAL":
        values = (text if text is not None else number,)  # the number of a label is only its index
    elif score.data_type not in ("TEXT", "CORRECTION"):
        values = (bool(number) if score.data_type == "BOOLEAN" and number is not None else number, text)
    Assessment(
        key=score.id,
        interaction_id=f"langfuse:{target}",
        name=score.name,
        created_at=score.timestamp if score.updated_at is None else score.updated_at,
        source=JUDGES[score.source],
        by=score.author_user_id,
        values=values,
        comment=(text if score.data_type == "TEXT" else None) or score.comment,
        correction=text if score.data_type == "CORRECTION" else None,
        source_fields=score.unknown,
    ).land(intake)


def read_trace(intake: Intake, record: bytes) -> None:
    observation = Observation.model_validate_json(record)
    if observation.type not in (None, *ANSWERING) and observation.parent_observation_id:
        return intake.skip("interactions")
    is_root = observation.type is not None and not observation.parent_observation_id
    served_at = observation.timestamp if observation.start_time is None else observation.start_time
    fields = {
        "messages": prompt_of(observation.input),
        "response": answer_of(observation.output),
        "conversation_id": intake.chat(observation.session_id),
        "base_model": observation.provided_model_name or observation.model or "unknown",
        "served_at": intake.time(served_at),
        "source_fields": observation.unknown,
    } | ({"subject_id": intake.person(observation.user_id)} if observation.user_id else {})
    intake.serve(interaction_id=f"langfuse:{observation.id}", **fields)
    if is_root and observation.trace_id:
        intake.serve(interaction_id=f"langfuse:{observation.trace_id}", **fields)
    return None


IMPORTER = Importer(
    name="langfuse",
    about="Langfuse scores (numeric, boolean, categorical, text, correction)",
    file="scores/*.jsonl (blob storage export) or pages of GET /api/public/v2/scores",
    read=read,
    traces_file="observations_v2/*.jsonl or traces/*.jsonl",
    read_trace=read_trace,
)
