"""One scheduler a lake: the first that comes holds it; people are never refused."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from ratchet.errors import UserError
from ratchet.scheduler_claim import SILENCE_S, claim, hand_over, scheduler_of
from ratchet.store import Store
from ratchet_pipelines.cli.main import app


def test_a_second_scheduler_is_refused_with_the_first_ones_name(lake: Store) -> None:
    claim(lake, "airflow", now=0.0)
    with pytest.raises(UserError, match=r"argo may not run the loop.*airflow does"):
        claim(lake, "argo", now=7 * 24 * 3600.0)  # the first may wait for a person and a canary


def test_a_nightly_scheduler_holds_the_lake_from_night_to_night(lake: Store) -> None:
    for night in range(3):
        claim(lake, "argo", now=night * 86400.0)
        with pytest.raises(UserError):
            claim(lake, "airflow", now=night * 86400.0 + 86399)


def test_a_scheduler_that_has_gone_silent_is_followed_by_another(lake: Store) -> None:
    claim(lake, "airflow", now=0.0)
    claim(lake, "argo", now=SILENCE_S + 1)
    assert (scheduler_of(lake, SILENCE_S + 2) or ("", 0))[0] == "argo"


def test_a_person_hands_the_lake_over(lake: Store) -> None:
    claim(lake, "airflow", now=0.0)
    assert hand_over(lake, now=1.0) == "airflow"
    claim(lake, "argo", now=2.0)
    assert hand_over(lake, now=SILENCE_S * 3) is None


def test_both_front_doors_meet_at_the_command_line(tmp_path: Path) -> None:
    lake = tmp_path / "lake"
    lake.mkdir()

    def is_refused(*options: str) -> bool:
        done = CliRunner().invoke(app, ["collect-triplets", "--lake", str(lake), *options])
        return "may not run the loop" in str(done.exception)

    assert not is_refused("--scheduler=airflow")
    assert is_refused("--scheduler=argo")
    assert not is_refused("--scheduler=")
    assert not is_refused()
    shown = CliRunner().invoke(app, ["lake", "scheduler", "--lake", str(lake), "--release"])
    assert "airflow is released" in shown.output
    assert not is_refused("--scheduler=argo")


def test_a_scheduler_never_refuses_itself(lake: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where S3 answers its own retry of a write with 412."""
    claim(lake, "argo", now=0.0)
    monkeypatch.setattr("ratchet.scheduler_claim.acquire", lambda *_: False)
    claim(lake, "argo", now=1.0)
    with pytest.raises(UserError):
        claim(lake, "airflow", now=1.0)


def test_a_claim_of_a_clock_that_was_ahead_is_void(lake: Store) -> None:
    claim(lake, "argo", now=365 * 86400.0)
    claim(lake, "airflow", now=0.0)
    assert scheduler_of(lake, 1.0) == ("airflow", SILENCE_S)
