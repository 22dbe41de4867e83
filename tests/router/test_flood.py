"""A router process under attack, and under a flood: its memory stays below the chart's limit, and it goes on answering.

The attacks are the benchmark's, so that what is measured is what is tested.
"""

import asyncio
from collections.abc import Iterator

import pytest
from benchmarks import flood


@pytest.fixture(scope="module")
def router() -> Iterator[flood.Router]:
    with flood.router() as router:
        yield router


@pytest.mark.parametrize("attack", flood.ATTACKS.values(), ids=flood.ATTACKS)
def test_attack_costs_neither_memory_nor_the_others_time(router: flood.Router, attack: flood.Attack) -> None:
    waited_s = asyncio.run(flood.slowest_probe(router, attack))
    assert waited_s < 20, "the chart's liveness probe kills a router after six failures in a row, in 50 s or more"
    assert router.peak_mib < flood.limit_mib()


def test_hostile_requests_among_others_cost_the_others_nothing(router: flood.Router) -> None:
    statuses, _ = asyncio.run(flood.flood(router, rate=300, seconds=5))
    assert statuses.total() == 1500
    assert statuses[200] > 1500 * 0.75
    assert not [status for status in statuses if status >= 500 or status == 0]
    assert router.peak_mib < flood.limit_mib()
