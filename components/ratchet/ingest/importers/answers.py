"""Add answers and preferences from formats that have no ids and mostly no times."""

from typing import Any

from ratchet.ingest.importers.chat import Messages
from ratchet.ingest.importers.intake import Intake


def serve(intake: Intake, messages: Messages, response: str, model: str, name: Any = None, **fields: Any) -> str:
    """Add an answer and return its id. Equal answers of one model to one prompt are one, unless `name` differs.

    Answers to conversations with the same opening share a conversation id, so that a split keeps them together.
    """
    opening = next((message for message in messages if message["role"] == "user"), messages[0])
    defaults = {"conversation_id": intake.digest(opening), "served_at": intake.time()}
    return intake.serve(
        **defaults | fields,
        interaction_id=intake.digest(name, model, messages, response),
        messages=messages,
        response=response,
        base_model=model,
    )


def prefer(intake: Intake, subject: str, winner: str, loser: str, is_tie: bool = False, **fields: Any) -> None:
    """Add one subject's preference between two answers."""
    intake.say(
        **{"created_at": intake.time(later_s=1)} | fields,
        feedback_id=intake.digest(subject, winner, loser, is_tie),
        interaction_id=winner,
        subject_id=subject,
        kind="preference",
        value=loser,
        is_tie=is_tie,
    )
