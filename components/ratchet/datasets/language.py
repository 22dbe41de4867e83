"""The language of a text, roughly: its script, and for Latin letters its commonest words.

Good enough to see at a glance that a dataset is half Portuguese. A trained identifier takes longer to load than a
million triplets take to build.
"""

import polars as pl

SCRIPTS = {
    "Chinese": r"\p{Han}", "Japanese": r"[\p{Hiragana}\p{Katakana}]", "Korean": r"\p{Hangul}",
    "Cyrillic": r"\p{Cyrillic}", "Arabic": r"\p{Arabic}", "Hebrew": r"\p{Hebrew}", "Greek": r"\p{Greek}",
    "Devanagari": r"\p{Devanagari}", "Thai": r"\p{Thai}",
}  # fmt: skip
COMMON = {
    "English": "the and is of to in what how you that for with are this can do does why where which would",
    "German": "der die und das ist nicht ich ein wie zu den mit was für eine",
    "French": "le la les des est et une que pour dans qui je vous comment pas",
    "Spanish": "el los las es una que por para como con del se qué en mi",
    "Portuguese": "os uma não que para com como da em um é ao seu você",
    "Italian": "il che di non una per con sono come gli della è un mi del",
    "Dutch": "de het een en van ik niet dat op te met voor hoe wat",
}
MIN_SHARE = 0.3  # of a text's letters, to be said to be written in a script


def languages(texts: pl.Series) -> dict[str, int]:
    """How many texts are in each language; `other` where nothing tells."""
    letters = pl.col("text").str.count_matches(r"\p{L}").clip(1)
    in_script = [
        pl.when(pl.col("text").str.count_matches(script) >= MIN_SHARE * letters).then(pl.lit(name))
        for name, script in SCRIPTS.items()
    ]
    hits = _common_words(texts)
    best = pl.max_horizontal(*COMMON)
    in_latin = [pl.when((pl.col(name) == best) & (best > 0)).then(pl.lit(name)) for name in COMMON]
    # Kana before Han: Japanese uses both.
    order = [in_script[1], in_script[0], *in_script[2:], *in_latin, pl.lit("other")]
    found = hits.with_columns(text=texts).select(language=pl.coalesce(order))
    return dict(found.group_by("language").len().sort("language").iter_rows())


def _common_words(texts: pl.Series) -> pl.DataFrame:
    """How many words of each text are common in each language; a column a language."""
    known = pl.DataFrame(
        [(word, name) for name, words in COMMON.items() for word in words.split()], ["word", "name"], orient="row"
    )
    said = texts.str.to_lowercase().str.extract_all(r"\w+").alias("word").to_frame().with_row_index("text")
    found = said.explode("word", empty_as_null=True, keep_nulls=True).join(known, on="word")
    counts = found.group_by("text").agg((pl.col("name") == name).sum().alias(name) for name in COMMON)
    return said.select("text").join(counts, on="text", how="left", maintain_order="left").drop("text").fill_null(0)
