import json

import polars as pl
import pytest
from typer.testing import CliRunner

from ratchet.errors import UserError
from ratchet.lineage import ancestry, descent, explain, where_used
from ratchet.manifest import Artifact, Manifest
from ratchet.step import read_manifest
from ratchet.store import Store
from ratchet_pipelines.cli.main import app

DIGEST = "d" * 64


def publish(store: Store, step: str, at: float, outputs: dict[str, str], *inputs: Manifest, **facts: str) -> Manifest:
    """A manifest as a step would have left it."""
    manifest = Manifest(
        step=step,
        key=f"k{at}",
        inputs={one.step: one.digest for one in inputs},
        code_version="0",
        created_at=at,
        seconds=0,
        outputs={name: Artifact(uri=uri, digest=uri.rpartition("/")[2]) for name, uri in outputs.items()},
        facts=facts,
    )
    store.create(manifest.uri, manifest.model_dump_json().encode())
    return read_manifest(store, manifest.uri)


@pytest.fixture
def history(lake: Store) -> dict[str, Manifest]:
    """Triplets, a dataset of them, an adapter of it and its verdict; and another dataset that nobody used."""
    made = {"valid": publish(lake, "validate_triplets", 1, {"valid": "validated/v"})}
    made["dataset"] = publish(lake, "build_datasets", 2, {"dataset": f"datasets/{DIGEST}"}, made["valid"])
    made["other"] = publish(lake, "build_datasets", 3, {"dataset": "datasets/eeee"}, made["valid"])
    made["adapter"] = publish(lake, "train_adapter", 4, {"adapter": "adapters/a"}, made["dataset"])
    made["verdict"] = publish(lake, "evaluate_adapter", 5, {}, made["dataset"], made["adapter"], verdict="pass")
    folder = lake.local(f"datasets/{DIGEST}")
    folder.mkdir(parents=True)
    places = {"feedback_id": ["f1", "f1", "f2"], "file": ["dpo-train", "kto-train", None], "place": [7, 0, None]}
    pl.DataFrame({**places, "reason": [None, None, "held_for_review"]}).write_parquet(folder / "feedback_index.parquet")
    (folder / "card.json").write_text(json.dumps({"triplets": {"rows_in": 2}}))
    (folder / "card.md").write_text("# Dataset card\n")
    return made


def test_descent_reaches_what_was_made_through_others(history):
    made = descent(history["valid"], history.values())
    assert [one.step for one in made] == ["build_datasets", "build_datasets", "train_adapter", "evaluate_adapter"]
    assert descent(history["other"], history.values()) == []


def test_ancestry_leads_back_to_the_first_step(history):
    steps = [one.step for one in ancestry(history["verdict"], history.values())]
    assert steps == ["validate_triplets", "build_datasets", "train_adapter", "evaluate_adapter"]


def test_vote_is_followed_to_every_adapter(lake, history):
    (use,) = where_used(lake, "f1")
    assert [(place.file, place.row) for place in use.places] == [("dpo-train", 7), ("kto-train", 0)]
    assert [(one["step"], one.get("verdict")) for one in use.made] == [
        ("train_adapter", None),
        ("evaluate_adapter", "pass"),
    ]


def test_vote_in_no_row_has_its_reason(lake, history):
    (use,) = where_used(lake, "f2")
    assert (use.places, use.reason) == ((), "held_for_review")


def test_vote_that_no_dataset_saw_is_used_nowhere(lake, history):
    assert where_used(lake, "f3") == []


@pytest.mark.parametrize("name", [DIGEST, DIGEST[:8], f"datasets/{DIGEST}"])
def test_dataset_is_explained_by_any_of_its_names(lake, history, name):
    told = explain(lake, name)
    assert [one["step"] for one in told["made_from"]] == ["validate_triplets"]
    assert [one["step"] for one in told["made"]] == ["train_adapter", "evaluate_adapter"]
    assert told["card"]["triplets"]["rows_in"] == 2


@pytest.mark.parametrize(("name", "count"), [("f", 0), ("", 2)])
def test_name_of_none_or_several_datasets_is_refused(lake, history, name, count):
    with pytest.raises(UserError, match=f"names {count} datasets"):
        explain(lake, name)


@pytest.fixture(scope="module")
def commands() -> CliRunner:
    return CliRunner()


@pytest.mark.parametrize("command", [["where-used", "f1"], ["explain", DIGEST[:8]]])
def test_commands_end_with_one_json_object_if_asked(commands, lake, history, command):
    told = commands.invoke(app, [*command, "--lake", lake.root, "--json"])
    assert told.exit_code == 0
    assert DIGEST in str(json.loads(told.stdout))


def test_commands_tell_people_in_words(commands, lake, history):
    assert "in no row: held" in commands.invoke(app, ["where-used", "f2", "--lake", lake.root]).stdout
    assert "Made of it" in commands.invoke(app, ["explain", DIGEST, "--lake", lake.root]).stdout
