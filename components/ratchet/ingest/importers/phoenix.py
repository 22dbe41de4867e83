"""Import Arize Phoenix annotations, and their spans (OpenInference attributes).

An annotation on a trace applies to the answer of its root span, which therefore also lands under the trace's id.
"""

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field

from ratchet.events import Source
from ratchet.ingest.importers.assessment import Assessment
from ratchet.ingest.importers.chat import answer_of, prompt_of
from ratchet.ingest.importers.importer import Importer
from ratchet.ingest.importers.intake import Intake, Unmappable
from ratchet.ingest.importers.shape import Shape, Time

JUDGES: dict[str, Source] = {"HUMAN": "human", "LLM": "model", "CODE": "code"}
ANSWERING = ("LLM", "CHAIN", "AGENT")


class Result(Shape):
    label: str | None = None
    score: float | None = None
    explanation: str | None = None


class Annotation(Shape):
    span_id: str | None = None
    trace_id: str | None = None
    name: str
    annotator_kind: Literal["HUMAN", "LLM", "CODE"]
    result: Result | None = None
    identifier: str | None = None
    user_id: str | None = None
    created_at: Time | None = None
    updated_at: Time | None = None


class Context(Shape):
    trace_id: str
    span_id: str


class Span(Shape):
    context: Context
    parent_id: str | None = None
    span_kind: str
    start_time: Time
    attributes: dict[str, Any] = Field({})


def read(intake: Intake, record: bytes) -> None:
    given = Annotation.model_validate_json(record)
    target = given.span_id or given.trace_id
    if not target:
        raise Unmappable("not_one_answer", "the annotation is on neither a span nor a trace")
    result = given.result or Result()
    Assessment(
        key=f"{target}/{given.name}/{given.identifier or ''}",  # Phoenix's own key of an annotation
        interaction_id=f"phoenix:{target}",
        name=given.name,
        created_at=intake.time(given.created_at if given.updated_at is None else given.updated_at),
        source=JUDGES[given.annotator_kind],
        by=given.user_id or given.identifier,
        values=(result.score, result.label),
        comment=result.explanation,
        source_fields=given.unknown,
    ).land(intake)


def read_trace(intake: Intake, record: bytes) -> None:
    span = Span.model_validate_json(record)
    if span.span_kind.upper() not in ANSWERING:
        return intake.skip("interactions")
    tree = _tree(span.attributes)
    user = _at(tree, "user", "id")
    fields = {
        "messages": prompt_of(_at(tree, "llm", "input_messages") or _at(tree, "input", "value")),
        "response": answer_of(_at(tree, "llm", "output_messages") or _at(tree, "output", "value")),
        "conversation_id": intake.chat(_at(tree, "session", "id")),
        "base_model": str(_at(tree, "llm", "model_name") or "unknown"),
        "served_at": span.start_time,
        "source_fields": span.unknown,
    } | ({"subject_id": intake.person(str(user))} if user else {})
    intake.serve(interaction_id=f"phoenix:{span.context.span_id}", **fields)
    if not span.parent_id:
        intake.serve(interaction_id=f"phoenix:{span.context.trace_id}", **fields)
    return None


def _tree(attributes: dict[str, Any]) -> dict[str, Any]:
    """Return attributes as nested objects, from nested or dotted names (`llm.input_messages.0.message.role`)."""
    tree: dict[str, Any] = {}
    for path, leaf in _leaves((), attributes):
        node = tree
        for part in path[:-1]:
            node = node.setdefault(part, {})
            if not isinstance(node, dict):
                raise Unmappable("unusable", f"the attribute {'.'.join(path)} is within a text")
        node[path[-1]] = leaf
    return tree


def _leaves(path: tuple[str, ...], value: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(value, dict | list):
        for name, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _leaves((*path, *str(name).split(".")), inner)
    else:
        yield path, value


def _at(tree: dict[str, Any], *path: str) -> Any:
    """Return the value at a path, or None; an object whose names are numbers becomes a list."""
    value: Any = tree
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return _listed(value)


def _listed(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    inner = {name: _listed(item) for name, item in value.items()}
    is_list = bool(inner) and all(name.isascii() and name.isdigit() for name in inner)
    return [inner[name] for name in sorted(inner, key=int)] if is_list else inner


IMPORTER = Importer(
    name="phoenix",
    about="Arize Phoenix annotations (score, label, explanation)",
    file="JSONL, or pages of GET /v1/projects/PROJECT/span_annotations",
    read=read,
    traces_file="spans: JSONL, or pages of GET /v1/projects/PROJECT/spans",
    read_trace=read_trace,
)
