"""Strata are cut by time, weight and number, never by arm or direction; one tenant's flood does not fill them."""

import random
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from ratchet.release.gate.eprocess import STRATUM_VOTES
from ratchet.release.gate.strata import MAX_TENANT_VOTES, counts_by_tenant, counts_of, new_strata
from ratchet.release.gate.votes import CountedVote
from support.gate_run import design

RUN = design((0, 1000, 20), (1000, 9000, 50))


def vote(at: float, tenant: str = "default", *, span: int = 0, canary: bool = False, up: bool = True) -> CountedVote:
    return CountedVote(at, f"i{at:09.3f}", span, "canary" if canary else "primary", up, tenant)


def test_a_stratum_is_read_when_it_is_full() -> None:
    votes = [vote(at) for at in range(STRATUM_VOTES + 5)]
    (stratum,) = new_strata(RUN, votes, until=500)
    assert stratum.last == votes[STRATUM_VOTES - 1].place
    assert new_strata(RUN, votes[: STRATUM_VOTES - 1], until=500) == []


def test_a_step_of_the_weight_closes_a_stratum_once_its_answers_have_had_their_time() -> None:
    votes = [vote(at) for at in range(5)] + [vote(1000 + at, span=1) for at in range(5)]
    assert new_strata(RUN, votes, until=999) == []
    (stratum,) = new_strata(RUN, votes, until=2000)
    assert (stratum.weight, stratum.last) == (20, votes[4].place)


@given(st.integers(0, 2**32 - 1))
def test_arms_and_directions_do_not_move_the_cuts(seed: int) -> None:
    draw = random.Random(seed)
    tenants = ["default", "a", "b"]
    votes = [vote(at, draw.choice(tenants), span=int(at >= 50)) for at in range(120)]
    other = [replace(each, arm=draw.choice(["primary", "canary"]), is_up=draw.random() < 0.5) for each in votes]
    draw.shuffle(other)
    assert [s.last for s in new_strata(RUN, votes, until=9e9)] == [s.last for s in new_strata(RUN, other, until=9e9)]


@given(st.integers(0, 2**32 - 1))
def test_reading_in_parts_reads_the_same(seed: int) -> None:
    """What one look reads, many looks read: the rest of the votes go on from the last place."""
    draw = random.Random(seed)
    votes = [vote(at, draw.choice("xyz"), span=int(at >= 40)) for at in range(150)]
    whole = new_strata(RUN, votes, until=9e9)
    parts, after = [], None
    for until in (30, 70, 90, 149):
        seen = [each for each in votes if each.served_at <= until and (after is None or each.place > after)]
        parts += new_strata(RUN, seen, until=9e9 if until > 40 else until)
        after = parts[-1].last if parts else None
    assert parts == whole[: len(parts)]


def test_a_flood_of_one_tenant_takes_half_of_a_stratum_at_most() -> None:
    flood = [vote(at, "loud") for at in range(200)]
    assert new_strata(RUN, flood, until=500) == []
    others = [vote(150 + at / 100, f"t{at}") for at in range(STRATUM_VOTES - MAX_TENANT_VOTES)]
    (stratum,) = new_strata(RUN, [*flood, *others], until=500)
    assert {each.tenant: each.primary for each in stratum.tenants}["loud"] == MAX_TENANT_VOTES


def test_a_public_without_tenants_fills_strata_alone() -> None:
    assert len(new_strata(RUN, [vote(at) for at in range(3 * STRATUM_VOTES)], until=500)) == 3


def test_counts_add_up_over_tenants() -> None:
    votes = [vote(at, "ab"[at % 2], canary=at % 3 == 0, up=at % 5 > 0) for at in range(2 * STRATUM_VOTES)]
    strata = new_strata(RUN, votes, until=500)
    total, each = counts_of(strata), counts_by_tenant(strata, ["a", "b"])
    for whole, parts in zip(vars(total).values(), vars(each).values(), strict=True):
        assert whole.tolist() == parts.sum(axis=0).tolist()
    assert total.canary_ups.tolist() == [
        sum(v.arm == "canary" and v.is_up for v in votes[first : first + STRATUM_VOTES]) for first in (0, STRATUM_VOTES)
    ]
