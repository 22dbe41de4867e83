"""The language of a prompt, as an ISO 639-1 code: for slices, not for decisions."""

MIN_LETTERS = 12  # of fewer, a name or a number decides


def language(text: str) -> str:
    """`und` for a text too short to tell."""
    if sum(map(str.isalpha, text)) < MIN_LETTERS:
        return "und"
    from py3langid import classify

    return str(classify(text)[0])
