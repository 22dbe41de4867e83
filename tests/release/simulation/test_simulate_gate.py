"""The simulation is the gate: its arrays decide as the e-process does, and its rates keep the promise."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom

from ratchet.config import Gate
from ratchet.release.gate.eprocess import Block, EProcess, alpha_of_attempt, harm_process, non_inferiority_process
from ratchet.release.simulation.draws import NEVER, Draws, Truth, draw, first_rejections
from ratchet.release.simulation.html_page import page
from ratchet.release.simulation.simulate_gate import NUM_QUESTIONS, Simulated, plain, simulate

ALPHA = 0.05
BOUND = math.log(1 / alpha_of_attempt(ALPHA, 1))


def one_by_one(process: EProcess, draws: Draws, run: int) -> int:
    for block in range(draws.num_blocks):
        up_a, up_b = int(draws.ups_a[run, block]), int(draws.ups_b[run, block])
        process = process.after(Block(num_a=draws.num_a, up_a=up_a, num_b=draws.num_b, up_b=up_b))
        if process.log_e >= BOUND:
            return block + 1
    return int(NEVER)


@pytest.mark.parametrize("process", [harm_process(), non_inferiority_process(0.1)], ids=["harm", "no worse"])
@pytest.mark.parametrize("shape", [(4, 1), (1, 1), (1, 4)])
def test_arrays_decide_as_the_gate_does(process: EProcess, shape: tuple[int, int]) -> None:
    drop = 0.3 if process.is_harm else -0.1
    draws = draw(Truth(baseline=0.7, drop=drop, drift=0.1), shape, 120, 40, seed=3)
    decided = first_rejections(process, draws, BOUND)
    assert decided.tolist() == [one_by_one(process, draws, run) for run in range(draws.num_runs)]
    assert (decided < NEVER).any()


@pytest.fixture(scope="module")
def simulated() -> Simulated:
    return simulate(Gate(), 500, 250, 20, seed=1)


def shares(found: Simulated, question: str, method: str = "gate") -> dict[str, float]:
    return {row.truth: row.share for row in found.rows if row.question == question and row.method == method}


@pytest.mark.parametrize("question", ["false rollback", "false promotion"])
def test_errors_stay_below_alpha_at_every_look(simulated: Simulated, question: str) -> None:
    likely = binom.ppf(0.999, simulated.num_runs, ALPHA) / simulated.num_runs
    found = shares(simulated, question)
    assert len(found) == (3 if question == "false rollback" else 2)
    assert max(found.values()) <= likely


def test_peeking_and_thresholds_do_not(simulated: Simulated) -> None:
    for method in ("Flagger's threshold", "the same, at every look"):
        assert shares(simulated, "false rollback", method)["equal arms"] > 2 * ALPHA


def test_larger_drops_are_caught_more_often_and_sooner(simulated: Simulated) -> None:
    rows = [row for row in simulated.rows if row.question == "rolled back" and row.method == "gate"]
    assert [row.share for row in rows] == sorted(row.share for row in rows)
    ten, twenty = rows[-2:]
    assert twenty.median_votes < ten.median_votes


def test_results_are_json_and_a_page(simulated: Simulated) -> None:
    again = json.loads(json.dumps(plain(simulated)))
    assert len(again["rows"]) == len(simulated.rows)
    text = page(simulated)
    assert text.count("<svg") == 2
    assert "http" not in text.replace("http://www.w3.org", "").replace("https://matplotlib.org", "").replace(
        "http://purl.org", ""
    ).replace("http://creativecommons.org", "")


def test_every_question_advances_the_bar() -> None:
    seen: list[None] = []
    simulate(Gate(), 100, 40, 20, seed=0, advance=lambda: seen.append(None))
    assert len(seen) == NUM_QUESTIONS


@pytest.mark.slow  # 10,000 canaries a question
def test_the_promise_at_ten_thousand_canaries() -> None:
    found = simulate(Gate(alpha=ALPHA), 10_000, 500, 20, seed=0)
    assert max(shares(found, "false rollback").values()) <= ALPHA
    assert max(shares(found, "false promotion").values()) <= ALPHA
    ten = next(row for row in found.rows if row.truth == "10 points worse" and row.method == "gate")
    assert ten.median_votes is not None
    assert ten.median_votes <= 150


def test_the_seed_decides_the_votes(tmp_path: Path) -> None:
    first, again = (draw(Truth(baseline=0.8), (4, 1), 10, 5, seed=7) for _ in range(2))
    assert np.array_equal(first.ups_a, again.ups_a)
