"""Import MLflow traces with their assessments, one record each, from an export or live from a tracking server.

A feedback is on the trace's root span, or on the span that it names. An expectation named `expected_response` is a
correction; other expectations are for evaluation and are not votes.
"""

import base64
from collections.abc import Iterator
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, model_validator
from pydantic_core import from_json, to_json

from ratchet import events
from ratchet.errors import UserError
from ratchet.ingest.importers.assessment import Assessment
from ratchet.ingest.importers.chat import answer_of, prompt_of
from ratchet.ingest.importers.importer import Importer, Source
from ratchet.ingest.importers.intake import Intake, Unmappable
from ratchet.ingest.importers.records import SourceRecord
from ratchet.ingest.importers.shape import Shape, Time

JUDGES: dict[str, events.Source] = {"HUMAN": "human", "LLM_JUDGE": "model", "AI_JUDGE": "model", "CODE": "code"}
CORRECTION = "expected_response"
PAGE_TRACES = 100


class Judge(Shape):
    source_type: Literal["HUMAN", "LLM_JUDGE", "AI_JUDGE", "CODE"]
    source_id: str | None = None


class Said(Shape):
    value: Any = None


class Given(Shape):
    """An assessment as written by MLflow's `Assessment.to_dictionary`."""

    assessment_id: str
    assessment_name: str
    span_id: str | None = None
    source: Judge
    create_time: Time
    last_update_time: Time | None = None
    feedback: Said | None = None
    expectation: Said | None = None
    rationale: str | None = None
    valid: bool | None = None


class Info(Shape):
    trace_id: str
    request_time: Time
    trace_metadata: dict[str, str] = Field({})
    assessments: list[dict[str, Any]] = Field([])


class Span(Shape):
    span_id: str
    parent_span_id: str | None = None
    attributes: dict[str, Any] = Field({})

    @property
    def hex_id(self) -> str:
        """The id in hexadecimal, as assessments have it; traces have it in base64."""
        try:
            return base64.b64decode(self.span_id, validate=True).hex()
        except ValueError:
            return self.span_id


class Data(Shape):
    spans: list[Span] = Field([])


class Trace(Shape):
    info: Info
    data: Data

    @model_validator(mode="before")
    @classmethod
    def _unwrap(cls, value: Any) -> Any:
        """Unwrap a row of the table from `mlflow.search_traces`, which has the whole trace as JSON under `trace`."""
        inner = value.get("trace") if isinstance(value, dict) and "info" not in value else None
        return from_json(inner) if isinstance(inner, str) else value


def read(intake: Intake, record: bytes) -> None:
    trace = Trace.model_validate_json(record)
    root = next((span for span in trace.data.spans if not span.parent_span_id), None)
    name = f"mlflow:{trace.info.trace_id}"
    with intake.part("interactions"):
        _serve(intake, trace, root, name)
    for raw in trace.info.assessments:
        with intake.part("feedback", data=to_json(raw)):
            given = Given.model_validate(raw)
            judged = next((span for span in trace.data.spans if span.hex_id == given.span_id), root)
            target = name if judged is root else f"{name}/{given.span_id}"
            if judged is not root:
                _serve(intake, trace, judged, target)
            _assess(intake, given, target)


def _serve(intake: Intake, trace: Trace, span: Span | None, name: str) -> None:
    attributes = span.attributes if span else {}
    metadata = trace.info.trace_metadata
    user = metadata.get("mlflow.trace.user")
    intake.serve(
        interaction_id=name,
        conversation_id=intake.chat(metadata.get("mlflow.trace.session")),
        messages=prompt_of(_decoded(attributes.get("mlflow.spanInputs"))),
        response=answer_of(_decoded(attributes.get("mlflow.spanOutputs"))),
        base_model=str(_decoded(attributes.get("mlflow.llm.model")) or "unknown"),
        served_at=trace.info.request_time,
        source_fields=trace.info.unknown,
        **({"subject_id": intake.person(user)} if user else {}),
    )


def _assess(intake: Intake, given: Given, target: str) -> None:
    if given.expectation is not None and given.assessment_name != CORRECTION:
        return intake.skip("feedback")
    if given.valid is False:
        raise Unmappable("taken_back", "another assessment overrides this one")
    value = given.feedback.value if given.feedback else None
    Assessment(
        key=given.assessment_id,
        interaction_id=target,
        name=given.assessment_name,
        created_at=given.create_time if given.last_update_time is None else given.last_update_time,
        source=JUDGES[given.source.source_type],
        by=given.source.source_id if given.source.source_id != "default" else None,
        values=(value,),
        comment=given.rationale,
        correction=given.expectation.value if given.expectation else None,
        source_fields=given.unknown,
    ).land(intake)
    return None


def _decoded(value: Any) -> Any:
    """Decode a span attribute, which is JSON text."""
    try:
        return from_json(value) if isinstance(value, str) else value
    except ValueError:
        return value


def live(uri: str, experiment: str) -> Source:
    """Return an experiment's traces as a source, listed by the tracking server, oldest first."""
    place = urlsplit(uri)
    return Source(f"{place.scheme}://{place.hostname or ''}{place.path} {experiment}", _listed(uri, experiment), 0)


def _listed(uri: str, experiment: str) -> Iterator[SourceRecord]:
    from ratchet.registry.mlflow_store import quieten

    quieten()
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    number, token = 0, None
    try:
        client = MlflowClient(tracking_uri=uri)
        known = client.get_experiment_by_name(experiment)
        if known is None:
            raise UserError(f"{uri} has no experiment {experiment!r}; name one with --experiment")
        while True:
            page = client.search_traces(
                locations=[known.experiment_id],
                max_results=PAGE_TRACES,
                order_by=["timestamp_ms ASC"],
                page_token=token,
            )
            for trace in page:
                yield SourceRecord(number, trace.to_json().encode(), 0)
                number += 1
            token = page.token
            if not token:
                return
    except MlflowException as error:
        raise UserError(f"MLflow at {uri} does not answer as it should: {error}") from None


IMPORTER = Importer(
    name="mlflow",
    about="MLflow traces with assessments (feedback, expected_response)",
    file="JSONL of Trace.to_json(), or a tracking URI and --experiment",
    read=read,
)
