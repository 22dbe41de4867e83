"""`ratchet releases`, `abort`, `rollback` and `hook-token`, on a ledger in a local lake."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from ratchet.errors import UserError
from ratchet.release.ledger import Ledger, LedgerEntry, close, read_ledger, request
from ratchet.store import Store
from ratchet_pipelines.cli.main import app
from support.release_edges import NEW, OLD, FakeCluster, serving

EVIDENCE = {"votes": {"canary": {"n": 10, "up": 2}}, "log_e": {"harm": 4.0}, "bound": 3.5, "decision": "fail"}


def ratchet(*arguments: object) -> str:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.fixture
def ended(lake: Store) -> Store:
    """Version 2 was rolled back, then requested again and promoted."""
    entry = LedgerEntry(event="requested", at=10.0, who="t", adapter=NEW, baseline=OLD, verdict="pass")
    for event, why in (("rolled_back", "users like it less"), ("promoted", "users like it no less")):
        opened = request(Ledger(lake), entry)
        assert opened
        close(Ledger(lake), opened, event, at=70.0, who="reconciler", why=why, evidence=EVIDENCE, commit="abc")
    return lake


def test_the_list_numbers_releases(ended: Store) -> None:
    output = ratchet("releases", "--lake", ended.root)
    assert [line.split()[0] for line in output.splitlines()[1:] if line.split()[0].isdigit()] == ["1", "1", "3", "3"]
    assert len(json.loads(ratchet("releases", "--lake", ended.root, "--json"))) == 4


@pytest.mark.parametrize(
    ("asked", "outcome", "attempt"), [(1, "rolled_back", 1), (2, "rolled_back", 1), (3, "promoted", 2)]
)
def test_one_release_is_explained(ended: Store, asked: int, outcome: str, attempt: int) -> None:
    output: dict[str, Any] = json.loads(ratchet("releases", "show", asked, "--lake", ended.root, "--json"))
    assert (output["outcome"], output["attempt"], output["seconds"]) == (outcome, attempt, 60.0)
    assert output["votes"] == {"canary": "2 of 10 up"}
    assert output["decided_by"] == "reconciler"
    text = ratchet("releases", "show", asked, "--lake", ended.root)
    assert "users like it" in text
    assert "harm 4.00" in text


def test_a_release_that_is_not_there_is_refused(ended: Store) -> None:
    with pytest.raises(UserError, match=r"no such release.*there are 1, 3"):
        ratchet("releases", "show", 9, "--lake", ended.root)


def test_going_back_is_asked_for_in_the_ledger(ended: Store, tmp_path: Path) -> None:
    cluster = FakeCluster()
    cluster.primary = cluster.target = NEW
    settings = tmp_path / "ratchet.yaml"
    arguments = ("--lake", ended.root, "--config", settings, "--who", "me")
    with serving(cluster.app) as url:
        settings.write_text(yaml.safe_dump({"release_adapter": {"cluster_url": url}}))
        output = json.loads(ratchet("rollback", "users complain", "--to", "base", *arguments, "--json"))
        with pytest.raises(UserError, match="under way"):
            ratchet("rollback", "again", "--to", "base", *arguments)
    assert (output["restores"], output["adapter"]["digest"], output["who"]) == (True, "base", "me")
    assert read_ledger(ended)[-1].baseline == NEW
    assert json.loads(ratchet("abort", "no", "--lake", ended.root, "--json"))["event"] == "abort_requested"


def test_the_hook_token_is_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RATCHET_GATE_TOKEN", "0123456789abcdef")
    assert len(ratchet("hook-token").strip()) == 32


def test_a_machines_user_is_no_person(lake: Store) -> None:
    command = ["approve", "adapter@v2", "fine", "--lake", lake.root]
    for environment in ({"USER": "ratchet"}, {"USER": "root"}):
        with pytest.raises(UserError, match="no person"):
            CliRunner().invoke(app, command, env=environment, catch_exceptions=False)
    done = CliRunner().invoke(app, [*command, "--optional", "--who", ""], catch_exceptions=False)
    assert (done.exit_code, read_ledger(lake)) == (0, [])
