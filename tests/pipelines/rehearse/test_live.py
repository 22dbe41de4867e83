"""In real processes: a verdict reaches traffic, alias, Git and ledger soon, whatever is killed on the way."""

import random
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import psutil
import pytest

from ratchet.config import Config
from ratchet_pipelines.rehearse.faults import FAULTS, Public
from ratchet_pipelines.rehearse.live import RealClockResult, live_rehearsal
from ratchet_pipelines.rehearse.supervisor import Supervisor

INTERVAL_S = 10.0  # Flagger's floor
pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]
Kill = Callable[[Supervisor], None]
Moment = Callable[[dict[str, Any]], bool]


def play(
    tmp_path: Path, fault: str, on_look: Any = lambda supervisor, state: None, max_minutes: float = 10
) -> RealClockResult:
    config = Config.model_validate({"gate": {"min_votes": 4, "max_minutes": max_minutes}})
    with live_rehearsal(config, FAULTS[fault], Public(), tmp_path / fault, INTERVAL_S) as live:
        return live.release(None, 300, on_look)


def test_a_better_candidate_is_promoted_everywhere(tmp_path: Path) -> None:
    lived = play(tmp_path, "better")
    assert (lived.outcome, lived.agrees) == ("promoted", True)


def a_router(supervisor: Supervisor) -> None:
    """One of the cluster's own children: the pods."""
    children = psutil.Process(supervisor.services["cluster"].process.pid).children()
    pods = [child for child in children if "ratchet.router.app" in " ".join(child.cmdline())]
    random.choice(pods).kill()


def service(name: str) -> Kill:
    return lambda supervisor: supervisor.services[name].kill()


VICTIMS: dict[str, Kill] = {
    "nobody": lambda supervisor: None,
    "gate": service("gate"),
    "reconciler": service("reconciler"),
    "cluster": service("cluster"),  # Flagger, Argo CD, gateway and kubelet are one process here
    "pool": service("pool"),
    "router": a_router,
}
MOMENTS: dict[str, Moment] = {
    "traffic": lambda state: state.get("weight", 0) > 0,
    "verdict": lambda state: bool(state.get("rollback")),
    "failed": lambda state: state.get("phase") == "Failed",
}


@pytest.mark.parametrize(
    ("victim", "moment"),
    [
        ("nobody", "verdict"),
        *product(("gate", "reconciler", "cluster", "pool", "router"), ("traffic", "verdict")),
        ("reconciler", "failed"),
        ("cluster", "failed"),
    ],
)
def test_a_rollback_is_complete_within_two_intervals_of_the_verdict(tmp_path: Path, victim: str, moment: str) -> None:
    """Killed at the verdict, at Flagger's rollback, or up to two seconds after the canary's first traffic.

    The reconciler sleeps from the verdict to the rollback, else it would often be done before we look.
    """
    num_looks = random.Random(victim).randrange(8) if moment == "traffic" else 0
    looks = iter(range(num_looks, -1, -1))
    killed: list[str] = []

    def on_look(supervisor: Supervisor, state: dict[str, Any]) -> None:
        if (victim, moment) == ("reconciler", "failed") and not killed and MOMENTS["verdict"](state):
            psutil.Process(supervisor.services[victim].process.pid).suspend()
        if not killed and MOMENTS[moment](state) and next(looks) == 0:
            VICTIMS[victim](supervisor)
            killed.append(victim)

    lived = play(tmp_path, "worse", on_look)
    print(victim, moment, lived)
    assert killed == [victim]
    assert (lived.outcome, lived.agrees) == ("rolled_back", True), lived
    assert lived.verdict_to_agreement_s is not None
    assert lived.verdict_to_agreement_s < 2 * INTERVAL_S, lived


@pytest.mark.parametrize("fault", ["no-votes", "dead-s3", "brigade"])
def test_what_cannot_be_judged_is_rolled_back_as_inconclusive(tmp_path: Path, fault: str) -> None:
    lived = play(tmp_path, fault, max_minutes=1)
    print(fault, lived)
    assert (lived.outcome, lived.agrees) == ("rolled_back", True), lived
    assert lived.why.startswith("inconclusive")
