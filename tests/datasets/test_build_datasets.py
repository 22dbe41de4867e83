import json

import polars as pl
import pytest

from judged import correction, frame, preference, rating, thumb
from ratchet.config import Config
from ratchet.datasets.build_datasets import STEP
from ratchet.digest import digest_tree
from ratchet.manifest import Artifact, Manifest
from ratchet.step import run_step
from ratchet.store import Store

NAMES = [f"{kind}-{side}" for kind in ("dpo", "kto", "sft") for side in ("eval", "train")]


def validated(store: Store, triplets: pl.DataFrame) -> Manifest:
    """What `validate_triplets` would have left: the same digest whatever the order of the rows."""
    folder = store.local("validated/v1")
    folder.mkdir(parents=True, exist_ok=True)
    triplets.write_parquet(folder / "triplets.parquet")
    outputs = {"valid": Artifact(uri="validated/v1", digest="v1", rows=len(triplets))}
    return Manifest(
        step="validate_triplets", key="v1", inputs={}, code_version="0", created_at=0, seconds=0, outputs=outputs
    )


def build(store: Store, triplets: pl.DataFrame, config: Config | None = None) -> Manifest:
    return run_step(STEP, config or Config(), {"validate_triplets": validated(store, triplets)}, store).manifest


def some_triplets(num_prompts: int = 40) -> pl.DataFrame:
    votes = []
    for n in range(num_prompts):
        prompt = f"question number {n}"
        votes += [thumb("ann", f"Good {n}.", prompt=prompt), thumb("bob", f"Bad {n}.", -1, prompt=prompt)]
        votes += [
            preference("eve", f"Good {n}.", f"Fair {n}.", prompt=prompt),
            rating("ann", f"Fair {n}.", 3, prompt=prompt),
        ]
        votes += [correction("joe", f"It is bad {n}.", f"It is good {n}.", prompt=prompt)]
    return frame(*votes)


def test_dataset_is_six_files_and_a_card_named_by_their_digest(lake):
    dataset = build(lake, some_triplets()).outputs["dataset"]
    folder = lake.local(dataset.uri)
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        ["card.json", *(f"{name}.parquet" for name in NAMES)]
    )
    assert dataset.digest == digest_tree(folder) == folder.name
    assert dataset.rows == sum(len(pl.read_parquet(folder / f"{name}.parquet")) for name in NAMES)


def test_order_of_input_rows_does_not_change_the_digest(lake):
    triplets = some_triplets()
    shuffled = validated(lake, triplets.sample(fraction=1, shuffle=True, seed=1))
    first = STEP.run(Config(), {"validate_triplets": shuffled}, lake)
    assert build(lake, triplets).outputs == first.outputs


def test_card_tells_counts_settings_and_drops(lake):
    manifest = build(lake, some_triplets())
    card = json.loads(lake.read(f"{manifest.outputs['dataset'].uri}/card.json"))
    assert card["triplets"] == {"rows_in": 200, "rows_out": 160, "drops": {"neutral_rating": 40}}
    assert {name: card["files"][name]["rows"] for name in NAMES} == dict(sorted(manifest.facts["sizes"].items()))
    assert card["settings"]["near_duplicate"] == 0.8
    assert card["input"] == {"triplets": "v1", "rows": 200}
    assert card["split"]["groups"] == 40


def test_no_group_is_on_both_sides(lake):
    folder = lake.local(build(lake, some_triplets()).outputs["dataset"].uri)
    groups = {
        side: {
            group
            for kind in ("sft", "dpo", "kto")
            for group in pl.read_parquet(folder / f"{kind}-{side}.parquet")["group"]
        }
        for side in ("train", "eval")
    }
    assert groups["train"] and groups["eval"]
    assert not groups["train"] & groups["eval"]


def test_columns_are_those_that_training_reads(lake):
    folder = lake.local(build(lake, some_triplets(3)).outputs["dataset"].uri)
    columns = {name: pl.read_parquet(folder / f"{name}.parquet").columns for name in NAMES if name.endswith("train")}
    assert columns == {
        "sft-train": ["messages", "weight", "feedback_ids", "group"],
        "dpo-train": [
            "prompt",
            "chosen",
            "rejected",
            "chosen_ends",
            "rejected_ends",
            "weight",
            "flip_probability",
            "feedback_ids",
            "group",
        ],
        "kto-train": ["prompt", "completion", "label", "weight", "feedback_ids", "group"],
    }


@pytest.mark.parametrize("triplets", [frame(), frame(thumb("ann", "Paris."))], ids=["none", "one"])
def test_smallest_inputs_give_files_with_a_schema_and_say_that_nothing_is_held_out(lake, triplets):
    folder = lake.local(build(lake, triplets).outputs["dataset"].uri)
    tables = {name: pl.read_parquet(folder / f"{name}.parquet") for name in NAMES}
    assert tables["dpo-eval"].schema["feedback_ids"] == pl.List(pl.String)
    assert sum(len(tables[name]) for name in NAMES if name.endswith("eval")) == 0
    assert "nothing is held out" in json.loads((folder / "card.json").read_text())["split"]["note"]


def test_settings_that_matter_make_another_dataset(lake):
    triplets = some_triplets(5)
    lighter = Config(build_datasets={"thumb_weight": 0.5})
    assert build(lake, triplets).outputs != build(lake, triplets, lighter).outputs


def test_real_votes_make_pairs_and_sums_hold(lake, shared_data):
    """PandaLM: 999 pairs, three annotators each; 0 tie, 1 the first is better, 2 the second."""
    votes = []
    for row in json.loads((shared_data / "pandalm-testset-v1.json").read_text()):
        for who in ("annotator1", "annotator2", "annotator3"):
            winner, loser = (
                (row["response2"], row["response1"]) if row[who] == 2 else (row["response1"], row["response2"])
            )
            prompt = f"{row['instruction']}\n{row['input']}"
            votes.append(preference(who, winner, loser, prompt=prompt, is_tie=row[who] == 0))
    manifest = build(lake, frame(*votes))
    flow = manifest.flows["triplets"]
    assert flow.rows_in == 2997
    assert flow.rows_out == 2400
    assert flow.drops == {"superseded": 408, "tie": 189}
    assert manifest.facts["sizes"]["dpo-train"] + manifest.facts["sizes"]["dpo-eval"] == 800
