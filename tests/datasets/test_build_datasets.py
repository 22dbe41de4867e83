import json
import math
import os
import subprocess
import sys
import time
from itertools import product
from pathlib import Path

import polars as pl
import pytest
from benchmarks.crowd import crowd

from ratchet.collection.collect_triplets import STEP as COLLECT
from ratchet.config import Config
from ratchet.datasets.build_datasets import STEP
from ratchet.digest import digest_tree
from ratchet.ingest.importers import import_files
from ratchet.manifest import Artifact, Manifest
from ratchet.step import key_of, run_step
from ratchet.store import Store
from support.lake_tables import read_triplets
from support.leak_checker import leaks
from support.triplet_factory import correction, frame, preference, rating, thumb

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


def build_again(store: Store, triplets: pl.DataFrame) -> Manifest:
    """A later build, of more triplets."""
    folder = store.local("validated/v2")
    folder.mkdir(parents=True)
    triplets.write_parquet(folder / "triplets.parquet")
    outputs = {"valid": Artifact(uri="validated/v2", digest="v2", rows=len(triplets))}
    later = validated(store, triplets).model_copy(update={"outputs": outputs})
    return run_step(STEP, Config(), {"validate_triplets": later}, store).manifest


def read(store: Store, manifest: Manifest, name: str) -> pl.DataFrame:
    return pl.read_parquet(store.local(manifest.outputs["dataset"].uri) / f"{name}.parquet")


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


def test_dataset_is_six_files_an_index_and_a_card_named_by_their_digest(lake):
    dataset = build(lake, some_triplets()).outputs["dataset"]
    folder = lake.local(dataset.uri)
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        ["card.json", "card.md", "card.svg", "feedback_index.parquet", *(f"{name}.parquet" for name in NAMES)]
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
    assert {name: card["input"][name] for name in ("triplets", "rows")} == {"triplets": "v1", "rows": 200}
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


def test_columns_are_those_that_training_reads_and_every_factor_of_the_weight(lake):
    folder = lake.local(build(lake, some_triplets(3)).outputs["dataset"].uri)
    columns = {name: pl.read_parquet(folder / f"{name}.parquet").columns for name in NAMES if name.endswith("train")}
    learnt = ["base", "reliability", "agreement", "recency", "exposure", "caution", "weight"]
    ends = ["chosen_ends", "rejected_ends"]
    assert columns == {
        "sft-train": ["messages", *learnt, "feedback_ids", "group", "synthetic"],
        "dpo-train": [
            "prompt",
            "chosen",
            "rejected",
            *ends,
            *learnt,
            "flip_probability",
            "tenant",
            "feedback_ids",
            "group",
            "synthetic",
        ],
        "kto-train": ["prompt", "completion", "label", *learnt, "feedback_ids", "group", "synthetic"],
    }


def test_weight_is_the_product_of_its_factors(lake):
    folder = lake.local(build(lake, some_triplets()).outputs["dataset"].uri)
    for kind in ("sft", "dpo", "kto"):
        rows = pl.read_parquet(folder / f"{kind}-train.parquet")
        factors = [pl.col(name) for name in ("base", "reliability", "agreement", "recency", "exposure", "caution")]
        products = rows.select(math.prod(factors, start=pl.lit(1.0))).to_series()
        assert rows["weight"].to_list() == pytest.approx(products.to_list(), rel=1e-5)


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


def test_every_triplet_is_in_the_index_with_its_rows_or_its_reason(lake):
    triplets = some_triplets()
    manifest = build(lake, triplets)
    folder = lake.local(manifest.outputs["dataset"].uri)
    places = pl.read_parquet(folder / "feedback_index.parquet")
    assert set(places["feedback_id"]) == set(triplets["triplet_id"])
    assert places.filter(pl.col("file").is_null())["reason"].value_counts().rows() == [("neutral_rating", 40)]
    for file, place, feedback in places.drop_nulls("file").select("file", "place", "feedback_id").iter_rows():
        assert feedback in pl.read_parquet(folder / f"{file}.parquet")["feedback_ids"][place]


def test_conversations_stay_on_their_side_in_later_builds_and_runs_again_change_nothing(lake):
    """Later votes tie together what was apart; the build before them finds its result all the same."""
    triplets = some_triplets()
    before = build(lake, triplets)
    held_out = read(lake, before, "dpo-eval")
    bridges = [
        thumb("new", f"Good {n}.", prompt=f"question number {n}", conversation_id="bridge", days=1) for n in range(3)
    ]
    after = build_again(lake, pl.concat([triplets, frame(*bridges)]))
    assert after.key != before.key
    assert set(held_out["prompt"]) <= set(read(lake, after, "dpo-eval")["prompt"])
    assert run_step(STEP, Config(), {"validate_triplets": validated(lake, triplets)}, lake).manifest.key == before.key
    assert STEP.run(Config(), {"validate_triplets": validated(lake, triplets)}, lake).outputs == before.outputs


def test_key_changes_only_when_something_expires(lake, monkeypatch):
    triplets = frame(thumb("ann", "Paris.", retention_until=1e9 + 10), thumb("bob", "Lyon.", -1, retention_until=2e9))
    keys = {}
    for now in (0.9e9, 1e9, 1.1e9, 1.2e9, 2.1e9):
        monkeypatch.setattr(time, "time", lambda now=now: now)
        keys[now] = key_of(STEP, Config(), {"validate_triplets": validated(lake, triplets)}, lake)
    assert keys[0.9e9] == keys[1e9] != keys[1.1e9] == keys[1.2e9] != keys[2.1e9]


def test_newest_groups_are_held_out_by_time_if_asked_for(lake):
    triplets = pl.concat([some_triplets(), frame(thumb("ann", "New.", prompt="What is new?", days=30))])
    config = Config(build_datasets={"recent_days": 7, "eval_share": 0.01})
    manifest = build(lake, triplets, config)
    assert read(lake, manifest, "kto-recent")["completion"].to_list() == ["New."]


@pytest.mark.parametrize("source", ["pandalm", "oasst"])
def test_real_prompts_do_not_leak(lake, shared_data, source):
    """Over all pairs of prompts, by a checker that shares no code with the splitter."""
    name = {"pandalm": "pandalm-testset-v1.json", "oasst": "oasst-en-100-trees.jsonl"}[source]
    import_files(lake, source, [shared_data / name])
    done = run_step(COLLECT, Config(), {}, lake).manifest
    triplets = read_triplets(lake, done.outputs["triplets"].digest, done.outputs["triplets"].rows)
    manifest = build(lake, triplets, Config(build_datasets={"near_duplicate": 0.5}))
    assert manifest.facts["eval_groups"] > 5
    assert leaks(lake.local(manifest.outputs["dataset"].uri), triplets, 0.5) == []


def test_planted_leaks_are_kept_on_one_side(lake):
    made = crowd(1500, seed=2).triplets
    shared = pl.when(pl.int_range(pl.len()) % 50 == 0).then(pl.lit("shared")).otherwise("conversation_id")
    triplets = made.with_columns(conversation_id=shared)
    manifest = build(lake, triplets)
    assert manifest.facts["eval_groups"] > 20
    assert leaks(lake.local(manifest.outputs["dataset"].uri), triplets) == []


@pytest.mark.parametrize(
    ("in_train", "in_eval", "found"), [(0, 1, "prompt"), (1, 2, "conversation"), (0, 2, None)], ids=str
)
def test_checker_finds_leaks_that_are_there(tmp_path, in_train, in_eval, found):
    asked = [("c1", "Bread?"), ("c2", "bread"), ("c2", "Honey?")]
    votes = [thumb("ann", "A.", prompt=prompt, conversation_id=name) for name, prompt in asked]
    for kind, (side, vote) in product(
        ("sft", "dpo", "kto"), {"train": votes[in_train], "eval": votes[in_eval]}.items()
    ):
        pl.DataFrame({"feedback_ids": [[vote["triplet_id"]]]}).write_parquet(tmp_path / f"{kind}-{side}.parquet")
    assert [leak[0] for leak in leaks(tmp_path, frame(*votes))] == ([found] if found else [])


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


def test_any_number_of_threads_makes_the_same_bytes(lake):
    """Polars decides on its threads when it is imported, so each build has a process of its own."""
    store = lake.local("crowd")
    store.mkdir(parents=True)
    crowd(3000).triplets.write_parquet(store / "crowd.parquet")
    program = (
        "import sys; sys.path[:0] = sys.argv[1:3]\n"
        "import polars as pl, test_build_datasets as tests\n"
        "from ratchet.store import open_store\n"
        "made = tests.build(open_store(sys.argv[3]), pl.read_parquet(sys.argv[4]))\n"
        "print(made.outputs['dataset'].digest, pl.thread_pool_size())"
    )
    tests = Path(__file__).parent
    told = {}
    for threads in ("1", "2"):
        command = [sys.executable, "-c", program, str(tests), str(tests.parent), str(store / threads)]
        path = os.pathsep.join([str(tests.parents[1]), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
        environment = {**os.environ, "POLARS_MAX_THREADS": threads, "PYTHONPATH": path}
        done = subprocess.run(
            [*command, str(store / "crowd.parquet")], env=environment, capture_output=True, check=True
        )
        digest, told[threads] = done.stdout.decode().split()
        told["digests"] = {digest, *told.get("digests", ())}
    assert (told["1"], told["2"], len(told["digests"])) == ("1", "2", 1)
