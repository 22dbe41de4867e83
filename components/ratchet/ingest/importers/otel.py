"""Import OpenTelemetry GenAI events from OTLP JSON lines (conventions after 1.41, in their own repository).

`gen_ai.evaluation.result` is feedback on the response id that it gives, or else on its span.
`gen_ai.client.inference.operation.details`, and spans with the same attributes, are answers; they have texts only if
the instrumentation captures content. Logs and spans may come in one file or in two.
"""

from typing import Any

from pydantic import ConfigDict, Field
from pydantic.alias_generators import to_camel

from ratchet.ingest.importers.assessment import Assessment
from ratchet.ingest.importers.chat import answer_of, prompt_of, text_of, unpacked
from ratchet.ingest.importers.importer import Importer
from ratchet.ingest.importers.intake import Intake, Unmappable
from ratchet.ingest.importers.shape import Shape

EVALUATION = "gen_ai.evaluation.result"
DETAILS = "gen_ai.client.inference.operation.details"
ANSWER = "gen_ai.output.messages"
NANOS = 1_000_000_000
INT64_DIGITS = 20


class Otlp(Shape):
    model_config = ConfigDict(alias_generator=to_camel, validate_by_name=False, validate_by_alias=True)


class Attributed(Otlp):
    """The common fields of a log record, a span and a span's event."""

    attributes: list[dict[str, Any]] = Field([])
    trace_id: str = ""
    span_id: str = ""
    time_unix_nano: str | int = 0

    @property
    def known(self) -> dict[str, Any]:
        return {str(pair.get("key")): _plain(pair.get("value")) for pair in self.attributes}


class LogRecord(Attributed):
    event_name: str = ""


class SpanEvent(Attributed):
    name: str = ""


class Span(Attributed):
    start_time_unix_nano: str | int = 0
    events: list[SpanEvent] = Field([])


class ScopeLogs(Otlp):
    log_records: list[LogRecord] = Field([])


class ResourceLogs(Otlp):
    scope_logs: list[ScopeLogs] = Field([])


class ScopeSpans(Otlp):
    spans: list[Span] = Field([])


class ResourceSpans(Otlp):
    scope_spans: list[ScopeSpans] = Field([])


class Line(Otlp):
    resource_logs: list[ResourceLogs] = Field([])
    resource_spans: list[ResourceSpans] = Field([])


def read(intake: Intake, record: bytes) -> None:
    line = Line.model_validate_json(record)
    if not line.resource_logs and not line.resource_spans:
        raise Unmappable("unusable", "neither resourceLogs nor resourceSpans")
    for logs in (scope for resource in line.resource_logs for scope in resource.scope_logs):
        for log in logs.log_records:
            _event(intake, log.event_name or str(log.known.get("event.name")), log)
    for spans in (scope for resource in line.resource_spans for scope in resource.scope_spans):
        for span in spans.spans:
            _span(intake, span)


def _span(intake: Intake, span: Span) -> None:
    if ANSWER in span.known:
        _answer(intake, span, span.start_time_unix_nano)
    else:
        intake.skip("interactions")
    for event in span.events:
        _event(intake, event.name, event.model_copy(update={"span_id": span.span_id, "trace_id": span.trace_id}))


def _event(intake: Intake, name: str, event: Attributed) -> None:
    if name == EVALUATION:
        with intake.part("feedback", data=event.model_dump_json(by_alias=True).encode()):
            _assessment(event).land(intake)
    elif name == DETAILS:
        _answer(intake, event, event.time_unix_nano)
    else:
        intake.skip("feedback")


def _assessment(event: Attributed) -> Assessment:
    known = event.known
    name, response = known.get("gen_ai.evaluation.name"), known.get("gen_ai.response.id")
    target = str(response) if response else _span_name(event)
    if not isinstance(name, str) or not target:
        raise Unmappable("unusable", "an evaluation lacks its name, or the response or span that it is on")
    at = _seconds(event.time_unix_nano)
    return Assessment(
        key=f"{target}/{name}/{event.time_unix_nano}",
        interaction_id=f"otel:{target}",
        name=name,
        created_at=at,
        source="model",
        values=(known.get("gen_ai.evaluation.score.value"), known.get("gen_ai.evaluation.score.label")),
        comment=known.get("gen_ai.evaluation.explanation"),
        source_fields={key: value for key, value in known.items() if not key.startswith("gen_ai.evaluation.")},
    )


def _answer(intake: Intake, event: Attributed, nanos: str | int) -> None:
    known = event.known
    response, span = known.get("gen_ai.response.id"), _span_name(event)
    with intake.part("interactions", data=event.model_dump_json(by_alias=True).encode()):
        if ANSWER not in known:
            raise Unmappable("no_text", "the content was not captured")
        system = text_of(unpacked(known.get("gen_ai.system_instructions")) or "")
        fields = {
            "messages": [
                *([{"role": "system", "content": system}] if system else []),
                *prompt_of(known.get("gen_ai.input.messages")),
            ],
            "response": answer_of(known[ANSWER]),
            "conversation_id": intake.chat(known.get("gen_ai.conversation.id")),
            "base_model": str(known.get("gen_ai.response.model") or known.get("gen_ai.request.model") or "unknown"),
            "served_at": _seconds(nanos),
            "prompt_tokens": known.get("gen_ai.usage.input_tokens"),
            "completion_tokens": known.get("gen_ai.usage.output_tokens"),
        }
        names = [str(name) for name in (response, span) if name]
        if not names:
            raise Unmappable("unusable", "an answer has neither a response id nor a span")
        for name in names:  # an evaluation names either
            intake.serve(interaction_id=f"otel:{name}", **fields)


def _span_name(event: Attributed) -> str:
    return f"{event.trace_id}/{event.span_id}" if event.span_id else ""


def _seconds(nanos: str | int) -> float:
    try:
        return int(nanos) / NANOS
    except (ValueError, OverflowError):
        raise Unmappable("unusable", "a time is not in nanoseconds") from None


def _plain(value: Any) -> Any:
    """Convert OTLP's AnyValue to a Python value; None if it is not one."""
    kind, inner = next(iter(value.items())) if isinstance(value, dict) and value else ("", None)
    match kind, inner:
        case "intValue", str() if len(inner) <= INT64_DIGITS and inner.lstrip("-").isdecimal():
            return int(inner)  # a string, since JSON numbers do not hold 64 bits
        case "arrayValue", {"values": list(values)}:
            return [_plain(item) for item in values]
        case "kvlistValue", {"values": list(values)}:
            return {str(pair.get("key")): _plain(pair.get("value")) for pair in values if isinstance(pair, dict)}
        case (("stringValue" | "boolValue" | "intValue" | "doubleValue"), (str() | bool() | int() | float())):
            return inner
    return None


IMPORTER = Importer(
    name="otel",
    about="OpenTelemetry GenAI events: evaluations, and the inferences they judge",
    file="OTLP JSON lines of logs (or spans), as the collector's file exporter writes them",
    read=read,
    traces_file="OTLP JSON lines of spans, if texts are there",
    read_trace=read,
)
