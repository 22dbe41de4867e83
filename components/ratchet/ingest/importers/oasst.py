"""Import Open-Assistant's conversation trees, one in each line, with ranked replies.

Every assistant reply is an interaction with the messages above it as its prompt. The ranks of siblings become one
preference for each pair. The ranks are a consensus of several raters, so each parent message has one subject.
"""

from itertools import combinations
from typing import Literal

from pydantic import Field

from ratchet.ingest.importers.answers import prefer, serve
from ratchet.ingest.importers.chat import Messages
from ratchet.ingest.importers.importer import Importer
from ratchet.ingest.importers.intake import Intake
from ratchet.ingest.importers.shape import Shape

ROLES = {"prompter": "user", "assistant": "assistant"}


class Post(Shape):
    message_id: str
    text: str
    role: Literal["prompter", "assistant"]
    rank: int | None = None
    model_name: str | None = None
    replies: "list[Post]" = Field([])


class Tree(Shape):
    prompt: Post


def read(intake: Intake, record: bytes) -> None:
    _add(intake, Tree.model_validate_json(record).prompt, [])


def _add(intake: Intake, post: Post, above: Messages) -> None:
    messages = [*above, {"role": ROLES[post.role], "content": post.text}]
    ranked: list[tuple[int, str]] = []
    for reply in post.replies:
        if reply.role == "assistant":
            model = reply.model_name or "human"
            answer = serve(intake, messages, reply.text, model, reply.message_id, source_fields=reply.unknown)
            if reply.rank is not None:
                ranked.append((reply.rank, answer))
    for (rank, answer), (worse_rank, worse) in combinations(sorted(ranked), 2):
        prefer(intake, f"oasst:{post.message_id}", answer, worse, is_tie=rank == worse_rank)
    for reply in post.replies:
        _add(intake, reply, messages)


IMPORTER = Importer(
    name="oasst",
    about="Open-Assistant's trees: ranked replies, a preference for each pair of siblings",
    file="*.trees.jsonl, a tree a line",
    read=read,
)
