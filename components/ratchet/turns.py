"""The digest by which a later turn of a chat finds an earlier one: few clients name their chats. Pure.

A turn's messages hold the earlier answers, so the digest of a prompt with its answer is that of a beginning of every
later turn, in each branch. System messages do not count, since applications write the time or what they retrieved into
them, nor do spaces around a text.
"""

from collections.abc import Iterable, Iterator
from hashlib import blake2b
from typing import Any

UNCOUNTED_ROLES = ("system", "developer")
Turn = tuple[str, str]
"""Role and content of a message."""


ANONYMOUS = "anonymous/"
"""Begins the subject of whoever is not named, after `TENANT/`: what follows is the chat, as its producer knew it."""


def person(tenant: str, subject: str) -> str:
    """Return whose turns are told apart: a tenant's people by name, and all of its people without one together."""
    is_unnamed = subject.startswith((ANONYMOUS, f"{tenant}/{ANONYMOUS}"))
    return f"{tenant}\0" if is_unnamed else f"{tenant}\0{subject}"


def beginnings(owner: str, turns: Iterable[Turn]) -> Iterator[int]:
    """Yield the digest of each beginning that ends in an assistant's message, the shortest first; 63 bits."""
    so_far = blake2b(owner.encode("utf-8", "replace"), digest_size=8)
    for role, content in turns:
        _add(so_far, role, content)
        if role == "assistant":
            yield _number(so_far)


def turn_digest(owner: str, turns: Iterable[Turn], answer: str) -> int:
    """Return the digest of a prompt with its answer."""
    so_far = blake2b(owner.encode("utf-8", "replace"), digest_size=8)
    for role, content in turns:
        _add(so_far, role, content)
    _add(so_far, "assistant", answer)
    return _number(so_far)


def _add(so_far: Any, role: str, content: str) -> None:
    if role not in UNCOUNTED_ROLES:
        text = content.strip().encode("utf-8", "replace")
        so_far.update(b"\0%s\0%d\0%s" % (role.encode("utf-8", "replace"), len(text), text))


def _number(so_far: Any) -> int:
    return int.from_bytes(so_far.digest(), "big") >> 1  # a signed column holds it
