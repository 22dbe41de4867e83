"""A small lake of made-up votes: enough of each kind that every step has work."""

import random

from ratchet.events import Feedback, Interaction, Message
from ratchet.ingest.landing import land
from ratchet.store import Store

TOPICS = ["bread", "bees", "the sky", "France", "honey", "salt", "paper", "tea", "maps", "owls", "soap", "kites"]
FORMS = ["Tell me about {}.", "Why is {} loved?", "How would you draw {}?", "What does {} cost these days?"]
START_S = 1_767_225_600.0  # 2026-01-01


def land_votes(store: Store, seed: int = 0, first: int = 0) -> None:
    """Two answers to each of 48 prompts; the short one is liked, the long one disliked or corrected."""
    rng = random.Random(seed)
    events: list[Interaction | Feedback] = []
    for number, prompt in enumerate((form.format(topic) for topic in TOPICS for form in FORMS), start=first):
        short = f"{prompt.split()[-1].strip('.?')} is good."
        for kind, answer in (("short", short), ("long", f"Well, {short} And more and more and more could be said")):
            name = f"{number}-{kind}"
            events.append(_interaction(name, prompt, answer, START_S + number))
            events.append(_vote(name, "thumb", 1 if kind == "short" else -1, START_S + number + 0.5))
            if kind == "long" and rng.random() < 0.5:
                events.append(_vote(name, "correction", short, START_S + number + 0.6))
    land(store, events)


def _interaction(name: str, prompt: str, answer: str, served_at: float) -> Interaction:
    return Interaction(
        interaction_id=f"i-{name}",
        conversation_id=f"c-{name}",
        subject_id=f"u-{name}",
        messages=[Message(role="user", content=prompt)],
        response=answer,
        base_model="tiny",
        served_at=served_at,
        consent_training="granted",
    )


def _vote(name: str, kind: str, value: float | str, created_at: float) -> Feedback:
    return Feedback(
        feedback_id=f"f-{name}-{kind}",
        interaction_id=f"i-{name}",
        subject_id=f"u-{name}",
        kind=kind,  # type: ignore[arg-type]
        value=value,
        created_at=created_at,
    )
