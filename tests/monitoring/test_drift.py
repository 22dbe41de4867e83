"""Drift on a real lake: votes landed, collected, and compared."""

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from ratchet.collection.collect_triplets import run as collect
from ratchet.config import Config
from ratchet.events import Feedback, Interaction, Message
from ratchet.ingest.landing import land
from ratchet.monitoring.drift import find_drift
from ratchet.store import Store

DAY_S = 86_400
START_S = 1_767_225_600.0  # 2026-01-01


def land_days(store: Store, days: range, approval: float, words: int) -> None:
    """Twenty votes a day."""
    events: list[Interaction | Feedback] = []
    for day in days:
        for number in range(20):
            rng = random.Random(f"{day}-{number}")
            name, at = f"{day}-{number}", START_S + day * DAY_S + number
            prompt = " ".join(["word"] * (words + rng.randrange(10)))
            events.append(
                Interaction(
                    interaction_id=name,
                    conversation_id=name,
                    subject_id="u",
                    base_model="tiny",
                    response="Yes.",
                    messages=[Message(role="user", content=prompt)],
                    served_at=at,
                )
            )
            vote = 1 if rng.random() < approval else -1
            events.append(
                Feedback(
                    feedback_id=name, interaction_id=name, subject_id="u", kind="thumb", value=vote, created_at=at + 1
                )
            )
    land(store, events)


def test_the_same_votes_go_on_and_nothing_has_drifted(lake: Store) -> None:
    land_days(lake, range(35), approval=0.6, words=10)
    collect(Config(), {}, lake)
    found = find_drift(lake)
    assert not found["drifted"], found["why"]
    assert [shift["signal"] for shift in found["shifts"]] == ["kind", "prompt_chars", "approval"]


@pytest.mark.parametrize(("approval", "words", "signal"), [(0.2, 10, "approval"), (0.6, 40, "prompt_chars")])
def test_a_changed_last_week_is_drift_and_says_what_moved(
    lake: Store, approval: float, words: int, signal: str
) -> None:
    land_days(lake, range(28), approval=0.6, words=10)
    land_days(lake, range(28, 35), approval, words)
    collect(Config(), {}, lake)
    found = find_drift(lake)
    assert found["drifted"]
    assert found["why"].startswith(signal)


def test_too_few_votes_cannot_tell(lake: Store) -> None:
    land_days(lake, range(3), approval=0.6, words=10)
    collect(Config(), {}, lake)
    found = find_drift(lake)
    assert not found["drifted"]
    assert "cannot tell: 60 recent and 0 earlier" in found["why"]


def test_the_command_leaves_its_finding_for_an_orchestrator(lake: Store, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ratchet_pipelines.cli", "drift", "--lake", lake.root, "--json"]
    done = subprocess.run([*command, "--out", tmp_path / "out"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "out" / "return.json").read_text()) == json.loads(done.stdout)
    assert json.loads(done.stdout)["why"].startswith("cannot tell")
