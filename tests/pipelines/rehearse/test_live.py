"""In real processes: a verdict reaches traffic, alias, Git and ledger soon, whatever is killed on the way."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from ratchet.config import Config
from ratchet_pipelines.rehearse.faults import FAULTS, Public
from ratchet_pipelines.rehearse.live import Lived, live_once
from ratchet_pipelines.rehearse.supervisor import Supervisor

INTERVAL_S = 10.0  # Flagger's floor
pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]
Kill = Callable[[Supervisor], None]


def play(tmp_path: Path, fault: str, on_look: Any = lambda supervisor, state: None) -> Lived:
    config = Config.model_validate({"gate": {"min_votes": 4}})
    return live_once(config, FAULTS[fault], Public(), tmp_path / fault, INTERVAL_S, 300, on_look)


def test_a_better_candidate_is_promoted_everywhere(tmp_path: Path) -> None:
    lived = play(tmp_path, "better")
    assert (lived.outcome, lived.agrees) == ("promoted", True)


def a_router(supervisor: Supervisor) -> None:
    """One of the cluster's own children: the pods."""
    children = psutil.Process(supervisor.services["cluster"].process.pid).children()
    pods = [child for child in children if "ratchet.rehearsal.pod" in " ".join(child.cmdline())]
    random.choice(pods).kill()


def service(name: str) -> Kill:
    return lambda supervisor: supervisor.services[name].kill()


VICTIMS = {
    "nobody": lambda supervisor: None,
    "gate": service("gate"),
    "reconciler": service("reconciler"),
    "cluster": service("cluster"),
    "pool": service("pool"),
    "router": a_router,
}


@pytest.mark.parametrize("victim", VICTIMS)
def test_a_rollback_is_complete_within_two_intervals_of_the_verdict(tmp_path: Path, victim: str) -> None:
    """Killed at some moment between the canary's first traffic and some looks after the verdict."""
    rng = random.Random(victim)
    moment, looks = rng.choice(["traffic", "verdict"]), iter(range(rng.randrange(8), -1, -1))
    killed: list[str] = []

    def on_look(supervisor: Supervisor, state: dict[str, Any]) -> None:
        is_time = state.get("rollback") if moment == "verdict" else state.get("weight")
        if is_time and not killed and next(looks) == 0:
            VICTIMS[victim](supervisor)
            killed.append(victim)

    lived = play(tmp_path, "worse", on_look)
    assert killed or lived.verdict_to_agreement_s is not None
    assert (lived.outcome, lived.agrees) == ("rolled_back", True), lived
    assert lived.verdict_to_agreement_s is not None
    assert lived.verdict_to_agreement_s < 2 * INTERVAL_S, lived
