"""PandaLM's test set: a JSON array of pairs, each judged by three people (0 tie, 1 first, 2 second)."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from ratchet.errors import UserError
from ratchet.lake.importers.votes import Votes
from ratchet.manifest import Flow
from ratchet.store import Store

ANNOTATORS = ("annotator1", "annotator2", "annotator3")
# Quotes inside a JSON string are escaped, so a brace before a bare quote opens an object even in a broken file.
OBJECT = re.compile(rb'\{\s*"')


class Pair(BaseModel):
    model_config = ConfigDict(strict=True)

    instruction: str
    input: str
    cmp_key: str
    response1: str
    response2: str
    annotator1: Literal[0, 1, 2]
    annotator2: Literal[0, 1, 2]
    annotator3: Literal[0, 1, 2]


def import_file(store: Store, path: Path) -> Flow:
    """Land the file's answers and its annotators' votes. Raises UserError if it holds no record at all."""
    votes = Votes("pandalm", path.name)
    order = -1
    for order, (offset, record) in enumerate(_records(path.read_bytes())):
        try:
            pair = Pair.model_validate_json(record)
        except ValidationError as error:
            votes.refuse(error, offset, record, num_votes=len(ANNOTATORS))
        else:
            _add(votes, order, pair)
    if order < 0:
        raise UserError(f"{path} holds no records; a PandaLM test set is a JSON array of objects")
    return votes.land(store)


def _add(votes: Votes, order: int, pair: Pair) -> None:
    prompt = f"{pair.instruction}\n\n{pair.input}" if pair.input else pair.instruction
    messages = [{"role": "user", "content": prompt}]
    first_model, _, second_model = pair.cmp_key.partition("_")
    first = votes.serve(order, first_model, messages, pair.response1)
    second = votes.serve(order, second_model, messages, pair.response2)
    for annotator in ANNOTATORS:
        choice = getattr(pair, annotator)
        winner, loser = (second, first) if choice == 2 else (first, second)
        votes.prefer(order, annotator, winner, loser, is_tie=choice == 0)


def _records(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Each object of the array with its byte offset; one that is broken reaches to where the next one opens."""
    text = data.decode("latin-1")  # a character a byte: offsets stay true, and JSON's own signs are ASCII
    decoder = json.JSONDecoder()
    opening = OBJECT.search(data)
    while opening:
        start = opening.start()
        try:
            end = decoder.raw_decode(text, start)[1]
            opening = OBJECT.search(data, end)
        except json.JSONDecodeError:
            opening = OBJECT.search(data, start + 1)
            end = opening.start() if opening else len(data)
        yield start, data[start:end]
