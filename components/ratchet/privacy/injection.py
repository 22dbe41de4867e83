"""Words that talk to the model over the user's head. They mark a row; they do not drop it. Pure.

Such patterns misfire: a lesson about prompt injection quotes them. So a hit only makes a row count for less.
"""

import polars as pl

WORDS = (
    r"(?:ignore|disregard|forget|override)\s+(?:all\s+|any\s+|the\s+|your\s+|these\s+|every\s+)*"
    r"(?:previous|prior|above|earlier|preceding|former|system)\s+(?:\w+\s+)?(?:instruction|prompt|rule|direction|message|guideline)"
    r"|(?:ignore|disregard|forget|override)\s+(?:all\s+(?:of\s+)?)?(?:your|the)\s+(?:\w+\s+)?(?:instruction|rule|guideline)"
    r"|(?:reveal|print|repeat|show|output|leak|tell\s+me)\s+(?:me\s+)?(?:your|the)\s+(?:\w+\s+)?"
    r"(?:system\s+prompt|hidden\s+(?:prompt|instruction)|initial\s+(?:prompt|instruction))"
    r"|you\s+are\s+now\s+(?:in\s+)?(?:dan\b|developer\s+mode|jailbr|unrestricted|unfiltered)"
    r"|(?:enable|enter|activate)\s+(?:developer|dan|jailbreak|god)\s+mode|do\s+anything\s+now"
    r"|pretend\s+(?:that\s+)?you\s+have\s+no\s+(?:rule|restriction|filter|guideline)"
    r"|new\s+(?:system\s+)?instructions?\s*:|begin\s+(?:new\s+)?system\s+(?:prompt|message)"
    r"|<\|(?:im_start|im_end|system|endoftext|start_header_id)\|>|\[/?inst\]|<</?sys>>|###\s*(?:system|instruction)\s*:"
)
PATTERN = f"(?i-u:{WORDS})"
# Every pattern holds one of these: texts without any are not looked at closer.
GATE = (
    "ignore", "disregard", "forget", "override", "system prompt", "hidden", "initial", "you are now", "mode",
    "anything now", "pretend", "instruction", "system", "<|", "[inst", "[/inst", "<<",
)  # fmt: skip
COLUMNS = ("messages", "response", "other_response", "value_text", "comment")


def risk(triplets: pl.DataFrame) -> pl.Series:
    """1 for each triplet in whose texts some pattern stands, else 0."""
    hits = pl.Series([0], dtype=pl.Int8).new_from_index(0, triplets.height)
    for name in COLUMNS:
        if name in triplets.columns:
            places = _hits(triplets[name])
            hits = hits.scatter(places, 1) if len(places) else hits
    return hits


def _hits(texts: pl.Series) -> pl.Series:
    gated = texts.to_frame("text").select(pl.col("text").str.contains_any(list(GATE), ascii_case_insensitive=True))
    passed = gated.to_series().arg_true()
    return passed.filter(texts.gather(passed).str.replace_all(r"\\[nrt]", " ").str.contains(PATTERN))
