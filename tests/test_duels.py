"""Both arms answer sampled prompts, a judge behind HTTP compares them in both orders, and the gate decides on it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from ratchet.adapter_ref import AdapterRef
from ratchet.config import Config
from ratchet.duels import Referee, is_sampled
from ratchet.events import Interaction, Message
from ratchet.ingest.landing import land
from ratchet.release.gate.evidence import run_tests
from ratchet.release.gate.traffic_log import TrafficLog
from ratchet.release.ledger import Ledger, LedgerEntry, LedgerRecord, request
from ratchet.store import Store, open_store
from support import judge_server
from support.gate_run import design
from support.http_server import running

OLD, NEW = AdapterRef(), AdapterRef(name="adapter", version="2", uri="u", digest="b" * 64)
GOOD, BAD = "a good answer", "an answer"


@pytest.fixture
def lake(tmp_path: Path) -> Store:
    return open_store(tmp_path)


def opened(lake: Store) -> LedgerRecord:
    entry = LedgerEntry(event="requested", at=time.time() - 60, who="t", adapter=NEW, baseline=OLD, verdict="pass")
    record = request(Ledger(lake), entry)
    assert record is not None
    route = TrafficLog(lake, record.seq)
    route.observe(time.time() - 50, 20)
    return record


def config(judge_url: str, **duels: Any) -> Config:
    return Config.model_validate(
        {
            "gate": {"duels": {"share": 1.0, **duels}},
            "evaluate_adapter": {"judge": {"style": "openai", "url": judge_url, "model": "j"}},
        }
    )


def serve_answers(lake: Store, num: int, **changes: Any) -> None:
    """Land answers of both arms in turn: the champion's are good, the candidate's are not."""
    answers = []
    for number in range(num):
        is_new = number % 2 == 1
        fields = {
            "interaction_id": f"i{number}", "conversation_id": f"c{number}", "subject_id": f"s{number}",
            "messages": [Message(role="user", content=f"Question {number}?")], "response": BAD if is_new else GOOD,
            "base_model": "tiny", "adapter_digest": (NEW if is_new else OLD).digest, "served_at": time.time() - 1,
            "consent_training": "granted", "params": {"max_tokens": 9},
        }  # fmt: skip
        answers.append(Interaction.model_validate(fields | changes))
    land(lake, answers)


class Pool:
    """A model pool, over HTTP, that answers as the arms do. A fake: no model is asked."""

    def __init__(self) -> None:
        self.app, self.asked = FastAPI(), []

        @self.app.post("/v1/chat/completions")
        def chat(body: dict[str, Any]) -> dict[str, Any]:
            self.asked.append(body)
            content = GOOD if body["model"] == "tiny" else BAD
            return {"choices": [{"message": {"content": content}, "finish_reason": "stop"}]}


@contextmanager
def asking(pool: Pool) -> Iterator[httpx.Client]:
    with running(pool.app) as url, httpx.Client(base_url=url) as client:
        yield client


def test_a_worse_candidate_is_found_without_a_vote(lake: Store) -> None:
    record, pool = opened(lake), Pool()
    serve_answers(lake, 48)
    with judge_server.serving(judge_server.fair) as judge, asking(pool) as client:
        referee = Referee(config(judge.url), lake, record, client)
        taken = [referee.hold(time.time()) for _ in range(5)]
    assert taken == [16, 16, 16, 0, 0]
    assert {body["model"] for body in pool.asked} == {"tiny", "adapter@v2"}
    assert all(body["max_tokens"] == 9 for body in pool.asked)
    assert {duel.score for duel in referee.log.duels} == {0.0}
    assert len(judge.asked) == 2 * 48
    run = design((0, 1, 20))
    assert run_tests(run, {"harm": [], "non_inferiority": []}, referee.log.duels).tests["harm"].has_decided


def test_a_referee_that_starts_again_holds_no_duel_twice(lake: Store) -> None:
    record, pool = opened(lake), Pool()
    serve_answers(lake, 20)
    with judge_server.serving(judge_server.fair) as judge, asking(pool) as client:
        Referee(config(judge.url), lake, record, client).hold(time.time())
        again = Referee(config(judge.url), lake, record, client)
        while again.hold(time.time()):
            pass
    ids = [duel.interaction_id for duel in again.log.duels]
    assert len(ids) == len(set(ids)) == 20


@pytest.mark.parametrize("limits", [{"max_duels": 10}, {"budget_tokens": 6_000}])
def test_the_budget_holds_over_rounds(lake: Store, limits: dict[str, int]) -> None:
    record, pool = opened(lake), Pool()
    serve_answers(lake, 60)
    with judge_server.serving(judge_server.fair) as judge, asking(pool) as client:
        referee = Referee(config(judge.url, **limits), lake, record, client)
        for _ in range(6):
            referee.hold(time.time())
    assert 0 < len(referee.log.duels) < 60
    assert sum(held.tokens for held in referee.log.rounds) <= limits.get("budget_tokens", 10**9)
    assert len(referee.log.duels) <= limits.get("max_duels", 60)


@pytest.mark.parametrize(
    "changes", [{"consent_training": "unknown"}, {"finish_reason": "length"}, {"adapter_digest": "c" * 64}]
)
def test_only_whole_answers_of_the_arms_with_consent_are_used(lake: Store, changes: dict[str, str]) -> None:
    record, pool = opened(lake), Pool()
    serve_answers(lake, 8, **changes)
    with asking(pool) as client:
        assert Referee(config("http://127.0.0.1:9"), lake, record, client).hold(time.time()) == 0
    assert pool.asked == []


def test_a_pool_that_is_away_costs_the_duel_and_nothing_else(lake: Store) -> None:
    record = opened(lake)
    serve_answers(lake, 4)
    with judge_server.serving(judge_server.fair) as judge, httpx.Client(base_url="http://127.0.0.1:9") as client:
        referee = Referee(config(judge.url), lake, record, client)
        assert referee.hold(time.time()) == 4
    assert (referee.log.duels, referee.log.rounds[0].without_verdict) == ([], {"no_answer": 4})


def test_the_sample_has_its_share_and_depends_on_the_id_alone() -> None:
    drawn = [is_sampled(f"i{number}", 0.1) for number in range(10_000)]
    assert 850 < sum(drawn) < 1150
    assert drawn == [is_sampled(f"i{number}", 0.1) for number in range(10_000)]
