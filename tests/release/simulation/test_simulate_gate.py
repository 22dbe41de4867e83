"""The simulation is the gate: its arrays decide as the gate's own reading does, and its rates keep the promise."""

import json
import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom

from ratchet.config import Gate
from ratchet.release.gate.design import alpha_of_attempt
from ratchet.release.gate.votes import ServedAnswer, Vote
from ratchet.release.simulation.baselines import METHODS
from ratchet.release.simulation.draws import Draws, draw, fill
from ratchet.release.simulation.html_page import page
from ratchet.release.simulation.scenarios import Attackers, Scenario
from ratchet.release.simulation.simulate_gate import GATE, Simulated, decide, num_scenarios, plain, simulate
from support.gate_run import NEW, OLD, GateRun, design

ALPHA = 0.05
SPENT = alpha_of_attempt(ALPHA, 1)
WORSE = [f"{points} points worse" for points in (3, 5, 10, 20)]
WIDE = Gate(harm_horizon_s=3600, promotion_horizon_s=3600)


def gate_of(draws: Draws, run: int, is_public: bool) -> GateRun:
    """Give one simulated canary's votes to the gate as events: an answer a second, a step where the span changes."""
    last = draws.is_up.shape[1]
    spans = draws.span[run]
    starts = [0, *np.flatnonzero(np.diff(spans)) + 1, last + 1]
    steps = [(float(first), float(end) - 0.5, 20) for first, end in pairwise(starts)]
    answers, votes = [], []
    for n in np.flatnonzero(draws.is_read[run]):
        digest = NEW if draws.is_canary[run, n] else OLD
        tenant = "default" if is_public else f"t{draws.tenant[run, n]}"
        answers.append(ServedAnswer(interaction_id=f"{n:06}", digest=digest, served_at=float(n), tenant=tenant))
        is_up = bool(draws.is_up[run, n])
        votes.append(Vote(feedback_id=f"f{n}", interaction_id=f"{n:06}", subject_id=f"s{n}", is_up=is_up, created_at=n))
    gate = GateRun(design(*steps))
    gate.look(answers, votes)
    return gate


@pytest.mark.parametrize(
    "scenario",
    [
        Scenario(name="public", drop=0.1),
        Scenario(name="steps", drop=0.1, final_weight=50, canary_eagerness=0.5),
        Scenario(name="tenants", drop=0.1, tenants=3, attackers=Attackers(num=150, is_tenant=True)),
    ],
    ids=lambda scenario: scenario.name,
)
def test_arrays_fill_strata_as_the_gate_does(scenario: Scenario) -> None:
    draws = draw(scenario, 300, 20, 1.0, 6, np.random.default_rng(2))
    counts = fill(draws)
    for run in range(6):
        strata = gate_of(draws, run, is_public=not scenario.tenants).strata["harm"]
        for number, stratum in enumerate(strata):
            expected = {t.tenant: (t.primary + t.canary, t.canary, t.canary_ups) for t in stratum.tenants}
            for tenant in range(counts.votes.shape[1]):
                votes, canary, ups = (
                    int(each[run, tenant, number]) for each in (counts.votes, counts.canary, counts.canary_ups)
                )
                name = f"t{tenant}" if scenario.tenants else "default"
                assert (votes, canary, ups) == expected.get(name, (0, 0, 0))
        assert counts.votes[run, :, len(strata) :].sum() == 0
        assert strata


@pytest.mark.parametrize("tenants", [0, 4])
def test_arrays_decide_as_the_gate_does(tenants: int) -> None:
    scenario = Scenario(name="worse", drop=0.25, votes=300, tenants=tenants)
    decided = decide(scenario, WIDE, 12, 60, 20, [5])[GATE]
    draws = draw(scenario, 300, 20, 1.0, 12, np.random.default_rng([5]))
    for run in range(12):
        result = gate_of(draws, run, is_public=not tenants)
        strata = result.strata["harm"]
        evidence = result.look([], [])
        assert (evidence.decision == "fail") == math.isfinite(decided[run])
        if math.isfinite(decided[run]):
            canary = np.cumsum([sum(t.canary for t in stratum.tenants) for stratum in strata])
            assert decided[run] in canary.tolist()
    assert np.isfinite(decided).sum() > 0


@pytest.fixture(scope="module")
def simulated() -> Simulated:
    return simulate(Gate(), 500, 400, 20, seed=1)


def test_errors_stay_below_alpha_at_every_look_unless_there_are_attackers(simulated: Simulated) -> None:
    likely = binom.ppf(1 - 1e-4, simulated.num_runs, SPENT) / simulated.num_runs
    errors = {row.name: row.share for row in simulated.rows if row.is_error and row.method == GATE}
    honest = {row.name for row in simulated.rows if not row.has_attackers}
    assert {name: share for name, share in errors.items() if name in honest and share > likely} == {}
    assert sum(name in honest for name in errors) > 30
    twice = binom.ppf(1 - 1e-4, simulated.num_runs, 2 * SPENT) / simulated.num_runs
    few = {name: share for name, share in errors.items() if name.startswith("10 accounts") or "tenant" in name}
    assert len(few) == 9
    assert max(few.values()) <= twice


def test_peeking_and_thresholds_do_not(simulated: Simulated) -> None:
    equal = {row.method: row.share for row in simulated.rows if row.name == "equal arms"}
    assert equal.keys() == {GATE, *METHODS}
    for method in ("Flagger's threshold", "the same, at every look"):
        assert equal[method] > 2 * ALPHA


def test_larger_drops_are_caught_more_often_and_sooner(simulated: Simulated) -> None:
    rows = [row for row in simulated.rows if row.method == GATE and row.name in WORSE]
    assert [row.share for row in rows] == sorted(row.share for row in rows)
    ten, twenty = rows[-2:]
    assert twenty.median_votes < ten.median_votes


def test_results_are_json_and_a_page(simulated: Simulated) -> None:
    rows = json.loads(json.dumps(plain(simulated)))
    assert len(rows) == num_scenarios(Gate())
    assert all({"name", "runs", "median_votes"} < row.keys() for row in rows)
    assert all(len({"false_rollback", "false_promotion", "power"} & row.keys()) == 1 for row in rows)
    text = page(simulated)
    assert text.count("<svg") == 2
    assert "http" not in text.replace("http://www.w3.org", "").replace("https://matplotlib.org", "").replace(
        "http://purl.org", ""
    ).replace("http://creativecommons.org", "")


def test_every_scenario_advances_the_bar() -> None:
    seen: list[None] = []
    simulate(Gate(), 2, 40, 20, seed=0, advance=lambda: seen.append(None))
    assert len(seen) == num_scenarios(Gate())


@pytest.mark.slow  # 10,000 canaries a scenario
def test_the_promise_at_ten_thousand_canaries() -> None:
    found = simulate(Gate(alpha=ALPHA), 10_000, 400, 20, seed=0)
    rows = {row.name: row for row in found.rows if row.method == GATE}
    honest = [row for row in rows.values() if row.is_error and not row.has_attackers]
    assert max(row.low for row in honest) <= SPENT
    assert max(row.share for name, row in rows.items() if name.startswith("10 accounts")) <= 2 * ALPHA
    ten = rows["10 points worse"]
    assert ten.median_votes is not None
    assert ten.median_votes <= 150


def test_the_seed_decides_the_votes(tmp_path: Path) -> None:
    scenario = replace(Scenario(name="any"), swing=0.1)
    first, again = (draw(scenario, 50, 20, 1.0, 5, np.random.default_rng(7)) for _ in range(2))
    assert np.array_equal(first.is_up, again.is_up)
