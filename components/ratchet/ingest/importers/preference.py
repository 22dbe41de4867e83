"""Import preference datasets (TRL's columns `prompt, chosen, rejected`, as texts or as chats).

In a chat the last message is the answer. `chosen` and `rejected` may repeat the conversation before it, and `prompt`
may then be missing; if both are given and differ, the conversation continues the prompt.
"""

from typing import Any

from ratchet.ingest.importers.answers import prefer, serve
from ratchet.ingest.importers.chat import Messages, answer_of, prompt_of
from ratchet.ingest.importers.importer import Importer
from ratchet.ingest.importers.intake import Intake, Unmappable
from ratchet.ingest.importers.shape import Shape


class PreferenceRecord(Shape):
    prompt: str | list[dict[str, Any]] | None = None
    chosen: str | list[dict[str, Any]]
    rejected: str | list[dict[str, Any]]


def read(intake: Intake, record: bytes) -> None:
    row = PreferenceRecord.model_validate_json(record)
    before, chosen = split(row.prompt, row.chosen)
    before_rejected, rejected = split(row.prompt, row.rejected)
    if before != before_rejected:
        raise Unmappable("not_one_answer", "chosen and rejected answer different prompts")
    winner, loser = (serve(intake, before, answer, "unknown") for answer in (chosen, rejected))
    subject = intake.digest("subject", winner, loser)  # no rater is named: every row is a subject of its own
    prefer(intake, subject, winner, loser, source_fields=row.unknown)


def split(prompt: str | list[dict[str, Any]] | None, given: str | list[dict[str, Any]]) -> tuple[Messages, str]:
    """Return the conversation before an answer, and the answer. A text is not parsed, even if it looks like JSON."""
    asked: Messages = []
    if prompt:
        asked = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt_of(prompt)
    messages = [{"role": "assistant", "content": given}] if isinstance(given, str) else prompt_of(given)
    if messages[-1]["role"] != "assistant":
        raise Unmappable("no_text", "the last message is not the assistant's")
    repeated = messages[: len(asked)] == asked
    before = messages[:-1] if repeated else [*asked, *messages[:-1]]
    if not before:
        raise Unmappable("no_text", "there is no prompt")
    return before, answer_of([messages[-1]])


IMPORTER = Importer(
    name="preference",
    about="preference datasets (TRL, Hugging Face): prompt, chosen, rejected; texts or chats",
    file="JSONL, JSON or Parquet",
    read=read,
)
