"""Detect phrases of prompt injection. They mark a row; they do not drop it. Pure.

The patterns have false positives (a lesson about prompt injection quotes them), so a hit only lowers the row's weight.
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
# Every match of PATTERN contains one of these: a cheap filter.
GATE = (
    r"(?i-u:ignore|disregard|forget|override|system\s+(?:prompt|message)|hidden\s+(?:prompt|instr)"
    r"|initial\s+(?:prompt|instr)|you\s+are\s+now|(?:per|dan|break|god)\s+mode|anything\s+now|pretend"
    r"|instructions?\s*:|<\||\[/?inst|<</?sys|###)"
)


def has_injection(texts: pl.Series) -> pl.Series:
    """Return which texts match a pattern. Also works on a chat's raw JSON, in which line ends are escaped."""
    return texts.str.replace_all(r"\\[nrt]", " ").str.contains(PATTERN).fill_null(False)
