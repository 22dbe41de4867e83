"""Where users' words stand in a triplet, and the triplet without what is personal in them. Pure.

Everything that may become a training target is scrubbed alike: the prompt's messages, the answer, the other answer,
a correction, a comment. Ids are left: they are pseudonyms already.
"""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import polars as pl

from ratchet.privacy.detectors import ANY, GATE
from ratchet.privacy.injection import risk
from ratchet.privacy.scrub import Scrubbed, Tier, scrub

TEXTS = ("response", "other_response", "comment")
TEXT_KINDS = ("correction", "comment")  # of other kinds, `value_text` is an id or should not be there
INJECTION_RISK = "injection_risk"


def scrub_triplets(triplets: pl.DataFrame, tiers: Sequence[Tier] = (scrub,)) -> tuple[pl.DataFrame, Counter[str]]:
    """The triplets scrubbed, with `injection_risk` (0 or 1) as it was before; and findings by kind."""
    found: Counter[str] = Counter()
    risks = risk(triplets)
    for tier in tiers:
        columns = [tier(triplets[name]) for name in TEXTS if name in triplets.columns]
        columns += [_scrub_values(triplets, tier), _scrub_messages(triplets["messages"], tier)]
        triplets = triplets.with_columns(column.texts for column in columns)
        found.update(sum((column.found for column in columns), Counter()))
    return triplets.with_columns(risks.alias(INJECTION_RISK)), found


def _scrub_values(triplets: pl.DataFrame, tier: Tier) -> Scrubbed:
    texts = triplets["value_text"]
    places = (triplets["kind"].is_in(TEXT_KINDS) & texts.is_not_null()).arg_true()
    words = tier(texts.gather(places))
    return Scrubbed(texts.clone().scatter(places, words.texts), words.found)


def _scrub_messages(messages: pl.Series, tier: Tier) -> Scrubbed:
    """Chats in JSON: every string in them but the names of fields and roles, of those chats that may hold something.

    Whether one may is asked of the raw JSON, its escapes made spaces, since an escaped line end would glue its `n` to
    the next word.
    """
    places = _suspicious_chats(messages) if tier is scrub else messages.is_not_null().arg_true()
    if not len(places):
        return Scrubbed(messages, Counter())
    chats = messages.gather(places)
    distinct = chats.unique()
    parsed = [json.loads(chat) for chat in distinct]
    strings = [text for chat in parsed for text in _strings(chat)]
    clean = tier(pl.Series(strings, dtype=pl.String))
    feed = iter(clean.texts)
    done = [_dump(_filled(chat, feed)) for chat in parsed]
    mapped = chats.replace_strict(distinct, pl.Series(done, dtype=pl.String))
    return Scrubbed(messages.clone().scatter(places, mapped), clean.found)


def _suspicious_chats(messages: pl.Series) -> pl.Series:
    passed = messages.str.contains(GATE).arg_true()
    plain = messages.gather(passed).str.replace_all(r"\\(?:u[0-9a-f]{4}|.)", " ")
    return passed.filter(plain.str.contains(ANY))


def _strings(value: Any, field: str | None = None) -> Iterator[str]:
    if isinstance(value, str) and field != "role":
        yield value
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner)
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from _strings(inner, name)


def _filled(value: Any, feed: Iterator[str], field: str | None = None) -> Any:
    """The value with its strings taken from `feed`, in the order in which `_strings` gives them."""
    if isinstance(value, str) and field != "role":
        return next(feed)
    if isinstance(value, list):
        return [_filled(inner, feed) for inner in value]
    if isinstance(value, dict):
        return {name: _filled(inner, feed, name) for name, inner in value.items()}
    return value


def _dump(chat: Any) -> str:
    """As the lake writes chats."""
    return json.dumps(chat, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
