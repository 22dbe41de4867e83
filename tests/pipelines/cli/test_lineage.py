"""`ratchet where-used` on a lake that the data steps have filled."""

import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from ratchet.config import Config
from ratchet.ingest.landing import land
from ratchet.store import Store, open_store
from ratchet_pipelines.cli.main import app
from ratchet_pipelines.graph import STEPS
from ratchet_pipelines.loop import run_loop
from support import vote_factory
from support.event_factory import vote

ANSWER = "i-0-long"


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A dataset of votes, some answers with two; and a vote that was collected after the dataset was built."""
    lake = open_store(tmp_path_factory.mktemp("filled") / "lake")
    vote_factory.land_votes(lake)
    land(lake, [vote("second", ANSWER, value=-1, at=vote_factory.START_S + 60)])
    run_loop(Config(), lake, lambda step, ran: None, STEPS[:3])
    land(lake, [vote("late", "i-1-long", value=-1, at=vote_factory.START_S + 90)])
    run_loop(Config(), lake, lambda step, ran: None, STEPS[:1])
    return lake


def where_used(lake: Store, name: str) -> list[dict[str, object]]:
    done = CliRunner().invoke(app, ["where-used", name, "--lake", lake.root, "--json"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_feedback_id_is_followed_to_its_rows(filled: Store) -> None:
    (use,) = where_used(filled, "second")
    assert use["feedback_id"] == "second"
    assert use["places"] or use["reason"]


def test_interaction_id_is_answered_for_each_feedback_on_it(filled: Store) -> None:
    uses = where_used(filled, ANSWER)
    votes = [str(use["feedback_id"]) for use in uses]
    assert "second" in votes
    assert len(votes) == len(set(votes)) >= 2
    assert uses == [use for name in votes for use in where_used(filled, name)]


def test_words_say_what_was_looked_up(filled: Store) -> None:
    answer = CliRunner().invoke(app, ["where-used", ANSWER, "--lake", filled.root]).stdout
    assert answer.startswith(f"{ANSWER} is an interaction id with the feedback ")
    assert "\nsecond:\ndatasets/" in answer
    assert (
        CliRunner()
        .invoke(app, ["where-used", "second", "--lake", filled.root])
        .stdout.startswith("second is a feedback id.")
    )
    late = CliRunner().invoke(app, ["where-used", "i-1-long", "--lake", filled.root]).stdout
    assert "late: in no dataset" in late


@pytest.mark.parametrize("name", ["nothing", "late"])
def test_unknown_id_is_refused_with_what_was_searched(filled: Store, name: str) -> None:
    command = [sys.executable, "-m", "ratchet_pipelines.cli", "where-used", name, "--lake", filled.root]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert f"where-used {name}: no feedback of that id is in a dataset" in done.stderr
    assert "searched the datasets and the feedback table" in done.stderr
