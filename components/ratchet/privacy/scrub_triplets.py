"""Scrub the texts of triplets, and mark prompt injection. Pure.

Every text that may be trained on is scrubbed: the prompt's messages, both answers, a correction, a comment. Ids are
pseudonyms, and stay.
"""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import polars as pl

from ratchet.digest import canonical_text
from ratchet.privacy.detectors import DETECTORS, GATE
from ratchet.privacy.injection import GATE as INJECTION_GATE
from ratchet.privacy.injection import has_injection
from ratchet.privacy.scrub import Scrubbed, Tier, scrub

WORDS = ("messages", "response", "other_response", "comment", "value_text")
TEXT_KINDS = ("correction", "comment")  # for other kinds, `value_text` is an id or a fault
INJECTION_RISK = "injection_risk"
SIEVE = f"{GATE}|{INJECTION_GATE}"
ANYTHING = ""  # names of people have no pattern: a named-entity tier reads every text


def scrub_triplets(triplets: pl.DataFrame, tiers: Sequence[Tier] = (scrub,)) -> tuple[pl.DataFrame, Counter[str]]:
    """Return the scrubbed triplets, with `injection_risk` (0 or 1) of the original texts; and findings by kind."""
    sieve = SIEVE if list(tiers) == [scrub] else ANYTHING
    may_hold = {name: pl.col(name).str.contains(sieve) for name in WORDS}
    may_hold["value_text"] &= pl.col("kind").is_in(TEXT_KINDS)
    sieved = triplets.lazy().select(**may_hold).collect(engine="streaming")  # one pass over all columns, on all cores
    is_at_risk = triplets.select(pl.repeat(0, pl.len(), dtype=pl.Int8)).to_series()
    found: Counter[str] = Counter()
    for name in WORDS:
        places = sieved[name].arg_true()
        texts = triplets[name].gather(places)
        is_at_risk = _put(is_at_risk, places.filter(has_injection(texts)), 1)
        for tier in tiers:
            clean = _scrub_chats(texts, tier) if name == "messages" else tier(texts)
            texts = clean.texts
            found += clean.found
        triplets = triplets.with_columns(_put(triplets[name], places, texts))
    return triplets.with_columns(is_at_risk.alias(INJECTION_RISK)), found


def _put(values: pl.Series, places: pl.Series, new: Any) -> pl.Series:
    return values.clone().scatter(places, new) if len(places) else values


def _scrub_chats(chats: pl.Series, tier: Tier) -> Scrubbed:
    """Scrub chats in JSON: every string except the names of fields and roles.

    Chats are filtered by their raw JSON with escapes replaced by spaces: an escaped line end would join its `n` to the
    next word.
    """
    if tier is scrub:
        plain = pl.col("chat").str.replace_all(r"\\(?:u[0-9a-f]{4}|.)", " ")
        hits = [pl.col("plain").str.contains(detector.pattern) for detector in DETECTORS]
        frame = chats.to_frame("chat").lazy().select(plain=plain).select(pl.any_horizontal(hits))
        places = frame.collect(engine="streaming").to_series().arg_true()
    else:
        places = pl.arange(len(chats), eager=True)
    parsed = [json.loads(chat) for chat in chats.gather(places)]
    clean = tier(pl.Series([text for chat in parsed for text in _strings(chat)], dtype=pl.String))
    feed = iter(clean.texts)
    done = pl.Series([canonical_text(_filled(chat, feed), allow_nan=True) for chat in parsed], dtype=pl.String)
    return Scrubbed(_put(chats, places, done), clean.found)


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
    """Return the value with its strings replaced from `feed`, in the order of `_strings`."""
    if isinstance(value, str) and field != "role":
        return next(feed)
    if isinstance(value, list):
        return [_filled(inner, feed) for inner in value]
    if isinstance(value, dict):
        return {name: _filled(inner, feed, name) for name, inner in value.items()}
    return value
