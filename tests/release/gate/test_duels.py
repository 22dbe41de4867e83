"""Duels are evidence that stays valid, and decide where votes are sparse; no tenant's duels decide alone."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratchet.config import Config
from ratchet.release.gate.duel_log import DuelLog, DuelRound, is_judged
from ratchet.release.gate.duels import Duel, DuelTest, harm_duels, mix, non_inferiority_duels
from ratchet.release.gate.evidence import run_tests
from ratchet.release.ledger import LedgerRecord
from ratchet.store import open_store
from support.gate_run import design

TESTS = {"harm": harm_duels(), "no worse": non_inferiority_duels(0.05)}
RUN = design((0, 1000, 20))
NO_STRATA = {"harm": [], "non_inferiority": []}


@pytest.mark.parametrize("test", TESTS.values(), ids=TESTS)
@given(low=st.floats(0, 1), high=st.floats(0, 1), at=st.floats(0, 1))
def test_no_distribution_in_the_null_gains_on_average(test: DuelTest, low: float, high: float, at: float) -> None:
    """Two-point distributions are the extreme ones of a mean; their mean is the null's or inside it."""
    low, high = sorted((low, high))
    mean = (test.null + at * (1 - test.null)) if test.is_harm else at * test.null
    if not (low <= mean <= high and high - low > 1e-6):
        return
    chance = (mean - low) / (high - low)
    gains = [
        chances * math.exp(test.log_e(np.array([a, b]), np.ones(2))[-1])
        for (a, p), (b, q) in itertools.product([(high, chance), (low, 1 - chance)], repeat=2)
        for chances in [p * q]
    ]
    assert sum(gains) <= 1 + 1e-9


def test_votes_and_duels_are_averaged() -> None:
    votes, duels = np.log([1.0, 4.0, 16.0]), np.log([1.0, 0.5])
    mixed = mix(votes, duels, np.array([1, 1, 2]), np.array([0, 1, 1]))
    assert np.exp(mixed) == pytest.approx([2.5, 2.25, 8.25])


def duels(scores: list[float], tenant: str = "default") -> list[Duel]:
    return [
        Duel(interaction_id=f"{tenant}{n}", judged_at=float(n), score=score, tenant=tenant)
        for n, score in enumerate(scores)
    ]


def test_lost_duels_are_harm_and_even_ones_are_no_worse() -> None:
    lost = run_tests(RUN, NO_STRATA, duels([0.0, 0.0, 0.5] * 30))
    assert lost.tests["harm"].has_decided
    assert not lost.tests["non_inferiority"].has_decided
    even = run_tests(RUN, NO_STRATA, duels([0.0, 1.0, 0.5, 0.5] * 150))
    assert even.tests["non_inferiority"].has_decided
    assert not even.tests["harm"].has_decided


def test_without_duels_votes_keep_the_whole_evidence() -> None:
    assert run_tests(RUN, NO_STRATA, None).tests["harm"].log_e_max == 0
    assert run_tests(RUN, NO_STRATA, duels([0.0] * 3)).tests["harm"].log_e_max > 0


def test_one_tenants_duels_decide_nothing() -> None:
    evil, others = duels([0.0] * 60, "evil"), duels([0.5, 1.0] * 5, "other")
    result = run_tests(RUN, NO_STRATA, sorted([*evil, *others], key=lambda duel: duel.judged_at)).tests["harm"]
    assert (result.has_decided, result.tenant) == (False, "evil")
    trusted = replace(RUN, trusted_tenants=frozenset({"evil"}))
    assert run_tests(trusted, NO_STRATA, evil).tests["harm"].has_decided


@pytest.mark.parametrize(
    ("share", "judge", "is_evidence"),
    [
        (0.1, {"style": "openai", "model": "j", "kappa_low": 0.4}, True),
        (0.0, {"style": "openai", "model": "j", "kappa_low": 0.4}, False),
        (0.1, {"style": "openai", "model": "j", "kappa_low": 0.2}, False),
        (0.1, {"style": "openai", "model": "another", "kappa_low": 0.4}, False),
        (0.1, None, False),
    ],
)
def test_only_a_calibrated_judge_counts(share: float, judge: dict | None, is_evidence: bool) -> None:
    config = Config.model_validate(
        {
            "gate": {"duels": {"share": share}},
            "evaluate_adapter": {"judge": {"style": "openai", "url": "http://127.0.0.1:1", "model": "j"}},
        }
    )
    evidence = {"judge": judge} if judge else {}
    adapter = {"name": "a", "version": "1", "uri": "u", "digest": "b" * 64}
    fields = {"seq": 1, "event": "requested", "at": 0.0, "who": "t", "adapter": adapter, "evidence": evidence}
    assert is_judged(config, LedgerRecord.model_validate(fields)) is is_evidence


def test_rounds_are_read_once_in_order(tmp_path) -> None:
    store = open_store(tmp_path)
    writer, reader = DuelLog(store, 1), DuelLog(store, 1)
    assert not reader.read()
    writer.append(DuelRound(duels=tuple(duels([0.0]))))
    writer.append(DuelRound(duels=tuple(duels([1.0], "t")), tokens=7))
    assert reader.read()
    assert not reader.read()
    assert [duel.score for duel in reader.duels] == [0.0, 1.0]
