"""Import arena votes (LMArena's releases): two models answer, and a user prefers one, both or neither.

`both_bad` is a thumb down on each answer. Battles of several turns are dropped: each model saw its own earlier answers,
so the two last answers have different prompts.
"""

from typing import Any, Literal

from pydantic import AliasChoices, Field

from ratchet.ingest.importers.answers import prefer, serve
from ratchet.ingest.importers.chat import Messages, prompt_of
from ratchet.ingest.importers.importer import Importer
from ratchet.ingest.importers.intake import Intake, Unmappable
from ratchet.ingest.importers.shape import Shape, Time


class Battle(Shape):
    id: str = Field(validation_alias=AliasChoices("id", "question_id"))
    model_a: str
    model_b: str
    winner: Literal["model_a", "model_b", "tie", "both_bad", "tie (bothbad)"]
    conversation_a: list[dict[str, Any]]
    conversation_b: list[dict[str, Any]]
    evaluation_session_id: str | None = None
    judge: str | None = None
    timestamp: Time | None = None
    tstamp: float | None = Field(None, description="Unix seconds, in the older releases")


def read(intake: Intake, record: bytes) -> None:
    battle = Battle.model_validate_json(record)
    prompt, answer_a = _split(battle.conversation_a)
    prompt_b, answer_b = _split(battle.conversation_b)
    if prompt != prompt_b:
        raise Unmappable("not_one_answer", "the two models answered different prompts")
    at = intake.time(battle.tstamp if battle.timestamp is None else battle.timestamp)
    shown = {"candidate_group_id": f"arena:{battle.id}", "served_at": at}
    a = serve(intake, prompt, answer_a, battle.model_a, [battle.id, "a"], **shown)
    b = serve(intake, prompt, answer_b, battle.model_b, [battle.id, "b"], **shown)
    vote = {"created_at": at, "source_ref": battle.id, "source_fields": battle.unknown}
    subject = intake.digest("subject", battle.judge or battle.evaluation_session_id or battle.id)
    if battle.winner in ("both_bad", "tie (bothbad)"):
        for answer in (a, b):
            name = intake.digest(battle.id, answer, "bad")
            intake.say(**vote, feedback_id=name, interaction_id=answer, subject_id=subject, kind="thumb", value=-1)
    else:
        winner, loser = (b, a) if battle.winner == "model_b" else (a, b)
        prefer(intake, subject, winner, loser, is_tie=battle.winner == "tie", **vote)


def _split(conversation: list[dict[str, Any]]) -> tuple[Messages, str]:
    *prompt, answer = prompt_of(conversation)
    if not prompt or answer["role"] != "assistant" or not answer["content"].strip():
        raise Unmappable("no_text", "the conversation does not end with an answer")
    return prompt, answer["content"]


IMPORTER = Importer(
    name="arena",
    about="arena votes (LMArena): two models, one vote; both bad is a thumb down on each",
    file="JSONL, JSON or Parquet",
    read=read,
)
