"""The language of a text, as an ISO 639 code: for counts and slices of an evaluation, not for decisions on a row.

By py3langid, a naive Bayes classifier over byte n-grams (Lui and Baldwin, ACL 2012) that knows 97 languages.
"""

MIN_LETTERS = 12  # with fewer, a single name or number decides


def text_language(text: str) -> str:
    """Return the likeliest language's code; `und` (undetermined) for fewer than `MIN_LETTERS` letters."""
    if sum(map(str.isalpha, text)) < MIN_LETTERS:
        return "und"
    from py3langid import classify

    return str(classify(text)[0])
