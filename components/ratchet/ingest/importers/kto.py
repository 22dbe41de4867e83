"""Import unpaired preferences (TRL's columns `prompt, completion, label`) as thumbs up and down."""

from typing import Any

from ratchet.ingest.importers.answers import serve
from ratchet.ingest.importers.importer import Importer
from ratchet.ingest.importers.intake import Intake
from ratchet.ingest.importers.preference import split
from ratchet.ingest.importers.shape import Shape


class KtoRecord(Shape):
    prompt: str | list[dict[str, Any]]
    completion: str | list[dict[str, Any]]
    label: bool


def read(intake: Intake, record: bytes) -> None:
    row = KtoRecord.model_validate_json(record)
    messages, response = split(row.prompt, row.completion)
    answer = serve(intake, messages, response, "unknown")
    intake.say(
        feedback_id=intake.digest(answer, row.label),
        interaction_id=answer,
        subject_id=intake.digest("subject", answer, row.label),  # no rater is named: every row is a subject of its own
        kind="thumb",
        value=1 if row.label else -1,
        created_at=intake.time(later_s=1),
        source_fields=row.unknown,
    )


IMPORTER = Importer(
    name="kto",
    about="unpaired preferences (TRL's KTO): prompt, completion, label; thumbs",
    file="JSONL, JSON or Parquet",
    read=read,
)
