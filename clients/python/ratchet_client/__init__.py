"""Votes on a model's answers, sent to a Ratchet router: `vote(completion, up=True, user="ann")`."""

from ratchet_client.client import AsyncRatchet, Ratchet, retract, vote
from ratchet_client.errors import RatchetError
from ratchet_client.ids import completion_id

__all__ = ["AsyncRatchet", "Ratchet", "RatchetError", "completion_id", "retract", "vote"]
