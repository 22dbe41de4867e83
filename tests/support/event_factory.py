"""Events for tests, with everything that does not matter filled in."""

from ratchet.events import Feedback, Interaction, Message

NOW_S = 1_767_300_000.0  # 2026-01-01


def interaction(interaction_id: str, response: str = "It is good.", served_at: float = NOW_S, **more: object):
    fields = {
        "interaction_id": interaction_id,
        "conversation_id": f"c-{interaction_id}",
        "subject_id": "asker",
        "messages": [Message(role="user", content="How is it?")],
        "response": response,
        "base_model": "tiny",
        "served_at": served_at,
        "consent_training": "granted",
    }
    return Interaction.model_validate(fields | more)


def vote(feedback_id: str, on: str, kind: str = "thumb", value: object = 1, at: float = NOW_S + 1, **more: object):
    fields = {
        "feedback_id": feedback_id,
        "interaction_id": on,
        "subject_id": "judge",
        "kind": kind,
        "value": value,
        "created_at": at,
    }
    return Feedback.model_validate(fields | more)
