import json
from pathlib import Path

import pytest

from ratchet.language import text_language


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("What is the capital of France?", "en"),
        ("Wie hoch ist der Eiffelturm?", "de"),
        ("Comment fait-on le pain dans les Alpes ?", "fr"),
        ("¿Cómo se hace el pan en casa?", "es"),
        ("Como você faz um pão para a família?", "pt"),
        ("Ile kosztuje chleb w sklepie na rogu?", "pl"),
        ("Ekmek evde nasıl yapılır, ne kadar sürer?", "tr"),
        ("パンはどうやって作りますか、教えて", "ja"),
        ("Как испечь хлеб дома без печи?", "ru"),
        ("12 + 30 = ?", "und"),
        ("", "und"),
    ],
)
def test_language_of_a_question(text: str, code: str):
    assert text_language(text) == code


def test_english_of_real_chats_is_recognised(shared_data: Path):
    """OpenAssistant labels each message's language; all of this sample is English."""
    texts, stack = [], []
    with (shared_data / "oasst-en-100-trees.jsonl").open() as file:
        stack = [json.loads(line)["prompt"] for line in file]
    while stack:
        message = stack.pop()
        texts.append(message["text"])
        stack += message["replies"]
    codes = [text_language(text) for text in texts]
    told = [code for code in codes if code != "und"]
    assert len(told) > 0.98 * len(codes)
    assert told.count("en") > 0.99 * len(told)
