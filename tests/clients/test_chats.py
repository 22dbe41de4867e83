"""Forty chats of two turns without an id, from each client: found by what was said, and on one side of the split."""

import re
from collections import defaultdict
from pathlib import Path

import polars as pl
import pytest
from tests.clients.matrix import CLIENTS, Client, pool_and_router, run
from tests.clients.test_matrix import marked

from ratchet.collection import collect_triplets
from ratchet.config import Config
from ratchet.datasets import build_datasets
from ratchet.ingest.landing import land
from ratchet.lake import tables
from ratchet.lake.schema import INTERACTIONS
from ratchet.manifest import Manifest
from ratchet.step import run_step
from ratchet.store import LocalStore
from ratchet.validation import validate_triplets
from support.event_factory import vote
from support.router_client import interactions

NUM_CHATS = 40
pytestmark = pytest.mark.timeout(600)


@pytest.mark.parametrize("client", [marked(one, client=one, name=one.name) for one in CLIENTS])
def test_no_chat_of_a_client_is_on_both_sides(client: Client, tmp_path: Path) -> None:
    lake = LocalStore(tmp_path)
    with pool_and_router(tmp_path) as (pool_url, router_url):
        run(client, router_url, pool_url, "two_turns", NUM_CHATS=str(NUM_CHATS))
    served = interactions(lake)
    assert len(served) == 2 * NUM_CHATS
    assert all(one.conversation_id == one.interaction_id for one in served), "no client names its chats"
    subjects = {one.interaction_id: one.subject_id for one in served}
    land(lake, [vote(f"v{own_id}", own_id, subject_id=subject) for own_id, subject in subjects.items()])
    config, done = Config(build_datasets={"eval_share": 0.3}), dict[str, Manifest]()
    for module in (collect_triplets, validate_triplets, build_datasets):
        step = module.STEP
        done[step.name] = run_step(step, config, {name: done[name] for name in step.inputs}, lake).manifest
    rows = tables.scan(lake, INTERACTIONS, tables.ALL).select("conversation_id", "interaction_id").collect()
    assert rows.group_by("conversation_id").len()["len"].to_list() == [2] * NUM_CHATS
    drops = done["build_datasets"].flows["triplets"].drops
    if client.name == "instructor":  # its answers are in a form that the prompt does not show
        assert drops == {"imposed_format": len(served)}
        return
    assert drops == {}, "nobody is dropped for being one of many"
    sides: dict[str, set[str]] = defaultdict(set)
    for file in tmp_path.glob("datasets/*/*.parquet"):
        if side := re.search("train|eval", file.stem):
            table = pl.read_parquet(file)
            for text in table[next(name for name in ("messages", "prompt") if name in table.columns)].to_list():
                chat = re.search("number [0-9]+", str(text))
                assert chat, text
                sides[chat[0]].add(side[0])
    assert len(sides) == NUM_CHATS
    assert {*map(len, sides.values())} == {1}
    assert {"train", "eval"} == set.union(*sides.values())
