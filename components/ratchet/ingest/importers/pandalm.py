"""Import PandaLM's test set: a JSON array of pairs, each with three raters' choices (0 tie, 1 first, 2 second)."""

from typing import Literal

from ratchet.ingest.importers.answers import prefer, serve
from ratchet.ingest.importers.importer import Importer
from ratchet.ingest.importers.intake import Intake
from ratchet.ingest.importers.shape import Shape

ANNOTATORS = ("annotator1", "annotator2", "annotator3")


class Pair(Shape):
    instruction: str
    input: str
    cmp_key: str
    response1: str
    response2: str
    annotator1: Literal[0, 1, 2]
    annotator2: Literal[0, 1, 2]
    annotator3: Literal[0, 1, 2]


def read(intake: Intake, record: bytes) -> None:
    pair = Pair.model_validate_json(record)
    prompt = f"{pair.instruction}\n\n{pair.input}" if pair.input else pair.instruction
    messages = [{"role": "user", "content": prompt}]
    first_model, _, second_model = pair.cmp_key.partition("_")
    first = serve(intake, messages, pair.response1, first_model)
    second = serve(intake, messages, pair.response2, second_model)
    for annotator in ANNOTATORS:
        choice = getattr(pair, annotator)
        winner, loser = (second, first) if choice == 2 else (first, second)
        prefer(intake, annotator, winner, loser, is_tie=choice == 0, source_fields=pair.unknown)


IMPORTER = Importer(
    name="pandalm",
    about="PandaLM's test set: pairs of answers, each judged by three people",
    file="testset-v1.json",
    read=read,
    num_votes=len(ANNOTATORS),
)
