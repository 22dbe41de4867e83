"""The named-entity tier: find names of people and places with a spaCy model. Optional, about a thousand times slower.

A model uses context, so it finds names that no pattern can, and makes other errors: it runs after the patterns.
"""

from collections import Counter

import polars as pl

from ratchet.errors import UserError
from ratchet.privacy.scrub import Scrubbed, Tier

PLACEHOLDERS = {"PERSON": "[PERSON]", "PER": "[PERSON]", "GPE": "[PLACE]", "LOC": "[PLACE]"}


def entity_tier(model: str) -> Tier:
    """Return a tier that uses an installed spaCy model. Raises UserError if spaCy or the model is missing."""
    try:
        import spacy  # type: ignore[import-not-found, unused-ignore]

        language = spacy.load(model)
    except (ImportError, OSError) as error:
        raise UserError(
            f"validate_triplets.entity_model = {model!r} cannot be loaded ({error}); install spaCy and that model in "
            "the steps' environment, or leave entity_model out: patterns are scrubbed without it"
        ) from None

    def scrub(texts: pl.Series) -> Scrubbed:
        found: Counter[str] = Counter()
        distinct = texts.drop_nulls().unique()
        clean = [_without_names(parsed, found) for parsed in language.pipe(distinct)]
        return Scrubbed(texts.replace_strict(distinct, pl.Series(clean, dtype=pl.String), default=None), found)

    return scrub


def _without_names(parsed: object, found: Counter[str]) -> str:
    text: str = parsed.text  # type: ignore[attr-defined]
    for entity in reversed(parsed.ents):  # type: ignore[attr-defined] # from the end, so that offsets stay valid
        placeholder = PLACEHOLDERS.get(entity.label_)
        if placeholder and "[" not in entity.text:  # a placeholder of the pattern tier is not a name
            text = text[: entity.start_char] + placeholder + text[entity.end_char :]
            found[placeholder.strip("[]")] += 1
    return text
