import polars as pl
import pytest

from ratchet.datasets.language import languages


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("What does bread cost these days?", "English"),
        ("Where do birds sleep?", "English"),
        ("Wie backt man ein Brot und was kostet das?", "German"),
        ("Comment fait-on le pain dans les Alpes ?", "French"),
        ("¿Cómo se hace el pan en casa?", "Spanish"),
        ("Como você faz um pão para a família?", "Portuguese"),
        ("面包是怎么做的？", "Chinese"),
        ("パンはどうやって作りますか", "Japanese"),
        ("Как испечь хлеб?", "Cyrillic"),
        ("12 + 30 = ?", "other"),
        ("", "other"),
    ],
)
def test_language_is_told_by_letters_and_common_words(text: str, language: str):
    assert languages(pl.Series([text])) == {language: 1}
