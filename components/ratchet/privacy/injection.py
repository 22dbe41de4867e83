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
    r"(?i-u:ignore|disregard|forget|override|system\s+(?:prompt|message)|hidden\s+(?:prompt|instr)"
    r"|initial\s+(?:prompt|instr)|you\s+are\s+now|(?:per|dan|break|god)\s+mode|anything\s+now|pretend"
    r"|instructions?\s*:|<\||\[/?inst|<</?sys|###)"
)


def has_injection(texts: pl.Series) -> pl.Series:
    """Whether some pattern stands in each text; in a chat's raw JSON, where line ends are escaped, as well."""
    return texts.str.replace_all(r"\\[nrt]", " ").str.contains(PATTERN).fill_null(False)
