"""Tell which chat a request goes on with, where its client names none, from the answers that this process gave."""

from collections import OrderedDict
from collections.abc import Sequence

from ratchet.events import Message
from ratchet.turns import ANONYMOUS, Turn, beginnings, person, turn_digest

MAX_ANSWERS = 100_000  # about 20 MB


class Chats:
    """Answers that this process gave lately to people without a name, by the digest of their turn."""

    def __init__(self, max_answers: int = MAX_ANSWERS) -> None:
        self._first_of: OrderedDict[int, str] = OrderedDict()
        self._max_answers = max_answers

    def find(self, tenant: str, messages: Sequence[Message]) -> str | None:
        """Return the id of the chat's first answer; None for a chat that begins, or began elsewhere."""
        if not any(message.role == "assistant" for message in messages):
            return None
        found = (
            self._first_of.get(digest)
            for digest in reversed([*beginnings(person(tenant, ANONYMOUS), _turns(messages))])
        )
        return next(filter(None, found), None)

    def remember(self, tenant: str, messages: Sequence[Message], answer: str, first: str) -> None:
        """Remember an answer as one of the chat that began with the answer `first`."""
        self._first_of[turn_digest(person(tenant, ANONYMOUS), _turns(messages), answer)] = first
        if len(self._first_of) > self._max_answers:
            self._first_of.popitem(last=False)


def _turns(messages: Sequence[Message]) -> list[Turn]:
    return [(message.role, message.content) for message in messages]
