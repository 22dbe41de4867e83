import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from ratchet.config import BuildDatasets, Config
from ratchet.datasets.build_datasets import decide
from ratchet.datasets.card import describe, draw, render_markdown, write_card
from ratchet.datasets.eligibility import assess_eligibility
from ratchet.datasets.interning import intern
from ratchet.datasets.materialize import divide, write_out
from support.triplet_factory import frame, preference, thumb

GOLDEN = Path(__file__).parent / "golden"
SPLIT = {"groups": 1, "eval_groups": 0, "recent_groups": 0, "hubs": 0, "largest_group": 1, "note": "nothing held out"}


def test_card_says_the_same_to_machines_people_and_eyes(tmp_path):
    texts = intern(frame(thumb("ann", "Paris."), preference("bob", "Paris.", "Lyon <3")))
    files = divide(*decide(assess_eligibility(texts, BuildDatasets()), texts, Config(), None), with_recent=False)
    card = {
        "triplets": {"rows_in": 5, "rows_out": 2, "drops": {"held_for_review": 3}},
        "split": SPLIT,
        "settings": {"eval_share": 0.2},
        "files": {name: describe(name, table, texts, write_out(name, table, texts)) for name, table in files.items()},
    }
    write_card(tmp_path, card, files, texts)
    told = json.loads((tmp_path / "card.json").read_text())
    assert told["files"]["kto-train"]["chars"]["completion"]["0 to 50"] == 1
    assert told["files"]["kto-train"]["weights"]["0.7 to 0.9"] == 1
    assert told["files"]["dpo-train"]["mean_factors"]["base"] == 1.0
    assert "| held_for_review | 3 |" in (tmp_path / "card.md").read_text()
    assert "held_for_review" in {node.text for node in ElementTree.parse(tmp_path / "card.svg").iter()}


def test_longest_bar_fills_its_room_and_labels_are_escaped():
    drawn = ElementTree.fromstring(draw({"A & B": {"<one>": 10, "two": 5, "none": 0}}))
    widths = [int(node.attrib["width"]) for node in drawn.iter() if node.attrib.get("fill") == "#3b6ea5"]
    assert widths == [450, 225, 0]


@pytest.mark.parametrize("name", ["full", "empty"])
def test_markdown_is_the_same_to_the_byte(name: str):
    """It is in the dataset's digest; the golden texts were written before it became a template."""
    card = json.loads((GOLDEN / f"card_{name}.json").read_text())
    assert render_markdown(card) == (GOLDEN / f"card_{name}.md").read_text()
