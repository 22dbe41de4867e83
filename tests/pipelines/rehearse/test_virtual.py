"""What a release would do, on a virtual clock: each fault ends as its row in docs/release.md says."""

from pathlib import Path

import pytest

from ratchet.config import Config
from ratchet.errors import UserError
from ratchet_pipelines.local_stack import CHART
from ratchet_pipelines.rehearse.faults import FAULTS, Public, fault
from ratchet_pipelines.rehearse.memory import MemoryGit
from ratchet_pipelines.rehearse.table import manifests_of, on_virtual_clock
from ratchet_pipelines.rehearse.virtual import CHAMPION, Rehearsal, rehearse_once

QUICK = Config.model_validate({"gate": {"max_minutes": 60, "harm_horizon_s": 30, "promotion_horizon_s": 60}})


@pytest.mark.parametrize(
    ("name", "outcome", "why"),
    [
        ("better", "promoted", "no less"),
        ("worse", "rolled_back", "like the candidate less"),
        ("erroring", "rolled_back", "do not arrive as the route sends them"),
        ("slow", "rolled_back", "do not arrive as the route sends them"),
        ("dead-gate", "open", ""),
        ("lost-gate", "open", ""),
        ("dead-s3", "rolled_back", "inconclusive"),
        ("no-votes", "rolled_back", "inconclusive"),
        ("killed-reconciler", "rolled_back", "like the candidate less"),
    ],
)
def test_each_fault_ends_as_documented(name: str, outcome: str, why: str) -> None:
    ended = rehearse_once(manifests_of(CHART, None), QUICK, FAULTS[name], Public(), seed=0)
    assert ended.outcome == outcome
    assert why in ended.why
    assert ended.agrees == (outcome != "open")


@pytest.mark.parametrize("name", ["erroring", "slow"])
def test_a_metric_catches_within_minutes_what_the_gate_only_holds(tmp_path: Path, name: str) -> None:
    values = tmp_path / "values.yaml"
    values.write_text("prometheus: {address: http://prometheus, maxLatencySeconds: 10}\nanalysis: {threshold: 2}\n")
    ended = rehearse_once(manifests_of(CHART, values), QUICK, FAULTS[name], Public(), seed=0)
    assert (ended.outcome, ended.agrees) == ("rolled_back", True)
    assert ended.minutes < 10


@pytest.mark.slow
def test_a_brigade_of_one_tenant_rolls_nothing_back_on_its_own_votes() -> None:
    manifests = manifests_of(CHART, None)
    for seed in range(3):
        ended = rehearse_once(manifests, QUICK, FAULTS["brigade"], Public(), seed)
        assert "like the candidate less" not in ended.why


class BlindOnceThereIsTraffic(Rehearsal):
    """The gate cannot look any more once the canary has traffic."""

    def look_as_gate(self) -> None:
        if self.look().weight == 0:
            super().look_as_gate()


def test_a_gate_that_cannot_look_grants_nothing_however_good_the_candidate_is() -> None:
    rehearsal = BlindOnceThereIsTraffic(
        manifests_of(CHART, None), MemoryGit(CHAMPION), config=QUICK, fault=FAULTS["better"]
    )
    ended, seen = rehearsal.play(), rehearsal.look()
    assert (ended.outcome, seen.phase, seen.weight) == ("open", "Progressing", 20)
    refusal = rehearsal.gate.answer("confirm-traffic-increase", rehearsal.now)
    assert (refusal.is_yes, "last saw cluster and lake" in refusal.why) == (False, True)


class GateAwayForTenTicks(Rehearsal):
    """The gate dies with its yes to confirm-rollout, and is back after ten ticks."""

    num_away = 0

    @property
    def is_gate_away(self) -> bool:
        return self.status().phase == "Progressing" and self.num_away < 10

    def tick(self) -> None:
        self.num_away += self.is_gate_away
        super().tick()


def test_a_gate_that_is_away_while_the_canary_starts_rolls_nothing_back() -> None:
    manifests = manifests_of(CHART, None)
    rehearsal = GateAwayForTenTicks(manifests, MemoryGit(CHAMPION), config=QUICK, fault=FAULTS["better"])
    ended = rehearsal.play()
    assert (rehearsal.num_away, ended.outcome, ended.agrees) == (10, "promoted", True)


class LooksAtEveryThirdTick(Rehearsal):
    """The gate looks less often than Flagger ticks, yet often enough not to be stale."""

    num_chances = 0
    num_looks = 0

    def __post_init__(self) -> None:
        self.steps: list[tuple[int, int]] = []
        """Number of the look, and the weight of each step up."""
        super().__post_init__()

    def look_as_gate(self) -> None:
        self.num_chances += 1
        if self.num_chances % 3 == 1:
            self.num_looks += 1
            super().look_as_gate()

    def set_weights(self, primary: int, canary: int) -> None:
        if canary > self.look().weight:
            self.steps.append((self.num_looks, canary))
        super().set_weights(primary, canary)


def test_no_step_is_taken_on_the_look_that_granted_the_last_one() -> None:
    manifests = manifests_of(CHART, None)
    manifests.canary["spec"]["analysis"] |= {"interval": "10s", "stepWeights": [20, 30, 40, 50]}
    no_minimum = Config.model_validate({"gate": {"max_minutes": 60, "min_votes": 0, "refresh_s": 10.0}})
    rehearsal = LooksAtEveryThirdTick(manifests, MemoryGit(CHAMPION), config=no_minimum, fault=FAULTS["better"])
    rehearsal.play()
    assert [weight for _, weight in rehearsal.steps] == [20, 30, 40, 50]
    looks = [look for look, _ in rehearsal.steps]
    assert len(set(looks)) == len(looks)


def test_the_same_seed_is_the_same_rehearsal() -> None:
    manifests = manifests_of(CHART, None)
    first, again = (rehearse_once(manifests, QUICK, FAULTS["worse"], Public(), seed=3) for _ in range(2))
    assert first == again


def test_rehearsals_are_counted() -> None:
    [row] = on_virtual_clock(QUICK, {"worse": FAULTS["worse"]}, 4, 0, CHART, None)
    assert sum(row["outcomes"].values()) == row["runs"] == 4
    assert row["agreed"] == 4


def test_unknown_faults_are_said_plainly() -> None:
    with pytest.raises(UserError, match="no such fault; known are none, better"):
        fault("gremlins")
