"""Thumbs of Chainlit and Open WebUI, in their own code: given, changed, on another model's answer, and taken back."""

from pathlib import Path

import pytest
from tests.clients.matrix import Client, pool_and_router, run
from tests.clients.test_page import BLOCKS

from ratchet.store import LocalStore
from support.router_client import interactions, votes

pytestmark = [pytest.mark.clients, pytest.mark.timeout(300)]
CHAINLIT = Client(name="Chainlit", package="chainlit", script="chainlit_layer.py", env=".venv-chainlit")
OPENWEBUI = Client(name="Open WebUI", package="open-webui", script="openwebui_functions.py", env=".venv-openwebui")


def thumbs(lake: LocalStore) -> list[tuple[float, str | None, list[str] | None, bool]]:
    """Value, comment, tags and whether it was taken back, of each vote on the one answer by the one who asked."""
    [answered] = interactions(lake)
    found = votes(lake)
    assert {(vote.interaction_id, vote.subject_id) for vote in found} == {
        (answered.interaction_id, answered.subject_id)
    }
    return [(vote.value, vote.comment, vote.tags, vote.is_retracted) for vote in found]


def test_chainlits_thumbs_reach_the_lake(tmp_path: Path) -> None:
    with pool_and_router(tmp_path) as (pool_url, router_url):
        assert run(CHAINLIT, router_url, pool_url, PAGE_BLOCK=BLOCKS["Chainlit"]["code"])["statuses"] == [200] * 4
    given, changed, (_, _, _, is_retracted) = thumbs(LocalStore(tmp_path))
    assert given == (1, None, None, False)
    assert changed == (-1, "rude", None, False)
    assert is_retracted


def test_open_webuis_thumbs_reach_the_lake_as_of_who_asked(tmp_path: Path) -> None:
    with pool_and_router(tmp_path) as (pool_url, router_url):
        assert run(OPENWEBUI, router_url, pool_url)["statuses"] == [200] * 4
    given, changed, (_, _, _, is_retracted) = thumbs(LocalStore(tmp_path))
    assert given == (1, None, ["Science"], False)
    assert changed == (-1, "The sea is not.", ["not_factually_correct", "Science"], False)
    assert is_retracted
    assert {one.subject_id for one in interactions(LocalStore(tmp_path))} == {"app/7f3a"}
