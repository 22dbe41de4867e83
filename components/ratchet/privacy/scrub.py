"""Replace personal data and secrets in texts by typed placeholders. Pure: equal texts stay equal.

Most texts hold none, so a cheap filter (`GATE`) comes first, and the detectors run on the few texts that pass it.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import polars as pl

from ratchet.privacy.detectors import DETECTORS, GATE

# Noncharacters, which no text exchanges (Unicode 23.7): they mark candidates that await their check.
OPEN, CLOSE = "\ufdd0", "\ufdd1"


@dataclass(frozen=True)
class Scrubbed:
    """Scrubbed texts, and the number of findings by kind."""

    texts: pl.Series
    found: Counter[str]


Tier = Callable[[pl.Series], Scrubbed]
"""A function from texts to scrubbed texts, one for one; nulls stay."""


def scrub(texts: pl.Series) -> Scrubbed:
    """Replace what the detectors find. Nulls stay; a text without findings does not change."""
    suspects = texts.str.contains(GATE).arg_true()
    found: Counter[str] = Counter()
    if not len(suspects):
        return Scrubbed(texts, found)
    clean = texts.gather(suspects)
    for detector in DETECTORS:
        before = _count(clean, detector.placeholder)
        if detector.check is not None:
            clean = _replace_checked(clean, detector.pattern, detector.check)
        else:
            clean = clean.str.replace_all(detector.pattern, f"{detector.keep}{detector.placeholder}{detector.after}")
        found[detector.kind] += _count(clean, detector.placeholder) - before
    return Scrubbed(texts.clone().scatter(suspects, clean), +found)


def _count(texts: pl.Series, placeholder: str) -> int:
    return int(texts.str.count_matches(placeholder, literal=True).sum())


def _replace_checked(texts: pl.Series, pattern: str, check: Callable[[str], str | None]) -> pl.Series:
    """Mark every candidate, replace those that pass the check, and remove the marks."""
    candidates = texts.str.extract_all(pattern).explode(empty_as_null=True).drop_nulls().unique()
    passed = {text: new for text in candidates if (new := check(text)) is not None}
    if not passed:
        return texts
    marked = texts.str.replace_all(f"({pattern})", f"{OPEN}${{1}}{CLOSE}")
    swaps = {f"{OPEN}{text}{CLOSE}": new for text, new in passed.items()}
    done = marked.to_frame("text").select(pl.col("text").str.replace_many(list(swaps), list(swaps.values())))
    return done.to_series().str.replace_many([OPEN, CLOSE], ["", ""]).alias(texts.name)
