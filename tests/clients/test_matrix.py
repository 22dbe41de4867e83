"""Every client's every cell, direct to a pool and through a router to it; docs/clients.md has what was found.

CI runs the core: OpenAI's clients for Python and, where npm's packages are, for Node. `make test-clients` runs all.
"""

import os
from collections.abc import Callable
from functools import cache

import pytest
from tests.clients import matrix, table
from tests.clients.matrix import CELLS, CLIENTS, Client, Runs, both, differences

pytestmark = pytest.mark.timeout(600)


def marked(*values: object, client: Client, name: str) -> object:
    return pytest.param(*values, id=name, marks=() if client.is_core else pytest.mark.clients)


@pytest.fixture(scope="session")
def runs() -> Callable[[Client], Runs]:
    return cache(both)


@pytest.mark.parametrize(
    ("client", "cell"),
    [marked(one, cell, client=one, name=f"{one.name} {cell}") for one in CLIENTS for cell in one.cells],
)
def test_a_client_gets_through_the_router_what_it_gets_from_the_pool(
    runs: Callable[[Client], Runs], client: Client, cell: str
) -> None:
    assert not list(runs(client).faults(cell))


@pytest.mark.clients
def test_the_table_is_what_was_found(runs: Callable[[Client], Runs]) -> None:
    made = table.with_table(table.PAGE.read_text(), {client.name: runs(client) for client in CLIENTS})
    if os.environ.get("REGENERATE_GOLDEN") == "1":
        table.PAGE.write_text(made)
    assert made == table.PAGE.read_text(), "run once with REGENERATE_GOLDEN=1 and review the difference"


def test_every_client_has_the_cells_that_a_user_meets_first() -> None:
    usual = {"chat", "tools", "schema", "image", "error", "busy", "timeout", "vote"}
    for client in CLIENTS:
        assert usual <= set(client.cells) <= set(CELLS), client.name


@pytest.mark.parametrize(
    ("direct", "routed", "found"),
    [
        ({"id": "chatcmpl-00000001", "created": 5}, {"id": "chatcmpl-gAAAAABsealed-_0==", "created": 6}, []),
        ({"id": "chatcmpl-00000001"}, {"id": None}, ["cell.id"]),
        ({"created": 5}, {"created": None}, ["cell.created"]),
        ({"choices": [{"text": "a"}]}, {"choices": [{"text": "b"}]}, ["cell.choices[0].text"]),
        ({"usage": {"total": 1}}, {"usage": {"total": 1, "more": None}}, ["cell.usage.more"]),
        (["a"], ["a", "b"], ["cell"]),
        ({"tool_call_id": "call_0"}, {"tool_call_id": "call_1"}, ["cell.tool_call_id"]),
    ],
)
def test_a_difference_is_found_field_by_field(direct: object, routed: object, found: list[str]) -> None:
    assert [one.partition(":")[0] for one in differences(direct, routed, "cell")] == found


def test_a_client_that_fails_on_both_ways_is_no_match() -> None:
    failed = {"failed": "TypeError: no such field"}
    assert len(list(Runs(direct={"chat": failed}, routed={"chat": failed}).faults("chat"))) == 2
    [fault] = Runs(direct={}, routed={"vote": {"gave": "f1"}}).faults("vote")
    assert fault == "no vote f1 in the lake"
    assert matrix.VOTES.keys() < set(CELLS)
