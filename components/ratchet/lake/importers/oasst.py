"""Open-Assistant: a conversation tree a line, with ranked replies.

Every assistant reply is an interaction with the messages above it as its prompt. The ranks of siblings become one
preference for each pair; several people agreed on them, so one subject for each parent message stands for them.
"""

from itertools import combinations, count
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from ratchet.errors import UserError
from ratchet.lake.importers.votes import Votes
from ratchet.manifest import Flow
from ratchet.store import Store

ROLES = {"prompter": "user", "assistant": "assistant"}


class Post(BaseModel):
    model_config = ConfigDict(strict=True, protected_namespaces=())

    message_id: str
    text: str
    role: Literal["prompter", "assistant"]
    rank: int | None = None
    model_name: str = "human"
    replies: "list[Post]" = []


class Tree(BaseModel):
    prompt: Post


def import_file(store: Store, path: Path) -> Flow:
    """Land the trees' replies and their ranks. A line that is no tree counts as one vote dropped."""
    votes = Votes("oasst", path.name)
    order = count()
    offset = 0
    for line in path.read_bytes().splitlines(keepends=True):
        if line.strip():
            _import_line(votes, order, offset, line)
        offset += len(line)
    if not offset:
        raise UserError(f"{path} is empty; an Open-Assistant export holds a JSON tree a line")
    return votes.land(store)


def _import_line(votes: Votes, order: "count[int]", offset: int, line: bytes) -> None:
    try:
        tree = Tree.model_validate_json(line)
    except ValidationError as error:
        votes.refuse(error, offset, line, num_votes=1)
    else:
        _add(votes, order, tree.prompt, [])


def _add(votes: Votes, order: "count[int]", post: Post, above: list[dict[str, str]]) -> None:
    messages = [*above, {"role": ROLES[post.role], "content": post.text}]
    ranked: list[tuple[int, str]] = []
    for reply in post.replies:
        if reply.role == "assistant":
            answer = votes.serve(next(order), reply.model_name, messages, reply.text, name=reply.message_id)
            if reply.rank is not None:
                ranked.append((reply.rank, answer))
    for (rank, answer), (worse_rank, worse) in combinations(sorted(ranked), 2):
        votes.prefer(next(order), f"oasst:{post.message_id}", answer, worse, is_tie=rank == worse_rank)
    for reply in post.replies:
        _add(votes, order, reply, messages)
