"""What importers share: preference votes as events, counted, landed once."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from ratchet.digest import digest_json
from ratchet.events import Feedback, Interaction
from ratchet.lake.landing import land
from ratchet.lake.quarantine import Refused, faults, keep
from ratchet.manifest import Flow
from ratchet.store import Store

EPOCH_S = 1_767_225_600  # 2026-01-01: imported files carry no times; row n is served so many steps after this
STEP_S = 10
DROPS = ("unreadable", "unusable", "duplicate")
"""Records that are no JSON (one vote each); votes whose record lacks what they need; votes given twice."""


@dataclass
class Votes:
    """The events of one imported file as they are found, each once, and what was refused."""

    origin: str
    file: str
    interactions: dict[str, Interaction] = field(default_factory=dict)
    feedback: dict[str, Feedback] = field(default_factory=dict)
    refused: list[Refused] = field(default_factory=list)
    drops: Counter[str] = field(default_factory=Counter)

    def serve(self, order: int, model: str, messages: list[dict[str, str]], response: str, name: Any = None) -> str:
        """Add an answer; its id. Equal answers of one model to one prompt are one, unless `name` tells them apart."""
        interaction_id = digest_json([self.origin, name, model, messages, response])[:32]
        if interaction_id not in self.interactions:
            self.interactions[interaction_id] = Interaction.model_validate(
                {
                    "interaction_id": interaction_id,
                    "conversation_id": digest_json([self.origin, messages[0]])[:32],
                    "subject_id": self.origin,
                    "messages": messages,
                    "response": response,
                    "base_model": model,
                    "served_at": EPOCH_S + order * STEP_S,
                    "consent_training": "granted",  # who imports a file vouches for it
                }
            )
        return interaction_id

    def prefer(self, order: int, subject: str, winner: str, loser: str, is_tie: bool = False) -> None:
        """Add one subject's preference between two answers."""
        feedback_id = digest_json([self.origin, subject, winner, loser, is_tie])[:32]
        if feedback_id in self.feedback:
            self.drops["duplicate"] += 1
            return
        self.feedback[feedback_id] = Feedback(
            feedback_id=feedback_id,
            interaction_id=winner,
            subject_id=subject,
            kind="preference",
            value=loser,
            is_tie=is_tie,
            created_at=EPOCH_S + order * STEP_S + 1,
        )

    def refuse(self, error: ValidationError, offset: int, data: bytes, num_votes: int) -> None:
        """Drop a record and its votes (one, if it is no JSON and they cannot be counted); its bytes are kept."""
        is_json = all(fault["type"] != "json_invalid" for fault in error.errors())
        self.drops["unusable" if is_json else "unreadable"] += num_votes if is_json else 1
        self.refused.append(Refused(self.file, offset, data, faults(error)))

    def land(self, store: Store) -> Flow:
        """Write everything to the lake."""
        if self.refused:
            keep(store, self.refused)
        land(store, [*self.interactions.values(), *self.feedback.values()])
        rows_out = len(self.feedback)
        drops = {reason: self.drops[reason] for reason in DROPS if self.drops[reason]}
        return Flow(rows_in=rows_out + self.drops.total(), rows_out=rows_out, drops=drops)
