"""Votes: with the answer's token only, attributed to what served, never acknowledged before they are stored."""

import pytest

from ratchet.router.tokens import Signer, Ticket
from ratchet.store import LocalStore
from support.router_client import (
    LEFT,
    NOWHERE,
    SECRET,
    SERVED,
    FullDisk,
    Start,
    ask,
    interactions,
    like,
    message,
    token,
    votes,
)


def test_answer_brings_the_token_to_vote_on_it_at_either_arm(start: Start, lake: LocalStore) -> None:
    answer = ask(start(**LEFT, arm="canary"), user="u1", metadata={"tenant": "t1"})
    primary = start(pool_url=NOWHERE, arm="primary")
    like(primary, {"authorization": f"Bearer {answer.headers['x-feedback-token']}"}).raise_for_status()
    [stored] = votes(lake)
    assert (stored.interaction_id, stored.subject_id) == (answer.headers["x-interaction-id"], "u1")
    assert (stored.tenant, stored.adapter_digest, stored.arm) == ("t1", "d1", "canary")


def test_vote_is_stored_under_an_id_that_repeats(start: Start, lake: LocalStore) -> None:
    router = start(pool_url=NOWHERE, arm="canary")
    again = {"feedback_id": "the same, sent again"}
    ids = [like(router, token(), **again).raise_for_status().json()["feedback_id"] for _ in range(2)]
    assert ids[0] == ids[1]
    assert {stored.feedback_id for stored in votes(lake)} == {ids[0]}
    assert 'ratchet_votes_total{arm="canary",kind="thumb",value="1.0"} 2.0' in router.get("/metrics").text


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer nonsense"},
        {"authorization": "Basic dTE6eA=="},
        {"authorization": token()["authorization"][:-1]},
        {"authorization": f"Bearer {Signer(['another secret']).sign(Ticket(**SERVED))}"},
    ],
    ids=["none", "nonsense", "basic", "cut", "another-secret"],
)
def test_nobody_votes_without_a_token_of_ours(start: Start, lake: LocalStore, headers: dict[str, str]) -> None:
    response = like(start(pool_url=NOWHERE), headers)
    assert response.status_code == 401
    assert "x-feedback-token" in message(response)
    assert response.headers["www-authenticate"] == "Bearer"
    assert votes(lake) == []


def test_token_that_was_changed_anywhere_is_no_token(start: Start, lake: LocalStore) -> None:
    token_of_u1 = token()["authorization"]
    router = start(pool_url=NOWHERE)
    for place in range(len("Bearer "), len(token_of_u1), 40):
        other = "A" if token_of_u1[place] != "A" else "B"
        changed = token_of_u1[:place] + other + token_of_u1[place + 1 :]
        assert like(router, {"authorization": changed}).status_code == 401
    assert like(router, token(), subject_id="u2").status_code == 400
    like(router, {"authorization": token_of_u1}).raise_for_status()
    assert [stored.subject_id for stored in votes(lake)] == ["u1"]


def test_token_of_the_old_secret_counts_while_the_secret_is_changed(start: Start) -> None:
    assert like(start(pool_url=NOWHERE, secret=f"{SECRET[::-1]},{SECRET}"), token()).status_code == 200
    assert like(start(pool_url=NOWHERE, secret=SECRET[::-1]), token()).status_code == 401


def test_where_tenants_have_keys_nobody_asks_without_one(start: Start, lake: LocalStore) -> None:
    router = start(**LEFT, api_keys="acme=k1,other=k2")
    assert ask(router).status_code == 401
    router.headers["authorization"] = "Bearer wrong"
    assert ask(router).status_code == 401
    router.headers["authorization"] = "Bearer k1"
    assert ask(router, user="u1", metadata={"tenant": "other"}).status_code == 200
    [stored] = interactions(lake)
    assert (stored.tenant, stored.subject_id) == ("acme", "acme/u1")


def test_subject_that_votes_too_often_has_to_wait_and_nobody_else_has(start: Start, lake: LocalStore) -> None:
    router = start(pool_url=NOWHERE, votes_per_minute=2)
    statuses = [like(router, token(interaction_id=f"i{number}")).status_code for number in range(3)]
    assert statuses == [200, 200, 429]
    assert 1 <= int(like(router, token(interaction_id="i9")).headers["retry-after"]) <= 30
    assert like(router, token(subject_id="u2")).status_code == 200
    assert len(votes(lake)) == 3


def test_vote_that_means_nothing_is_refused_and_says_what_would(start: Start, lake: LocalStore) -> None:
    router = start()
    response = like(router, token(), kind="rating", value=11)
    assert response.status_code == 400
    assert "a rating is a whole number from 1 to 5; given 11" in message(response)
    response = like(router, token(), kind="clap")
    assert response.status_code == 400
    assert "'thumb', 'rating', 'correction'" in message(response)
    assert votes(lake) == []


def test_nothing_is_acknowledged_that_is_not_stored(start: Start, lake: LocalStore) -> None:
    router = start(store=FullDisk(lake.path))
    for response in (like(router, token()), ask(router)):
        assert response.status_code == 503
        assert message(response).startswith("not stored, try again")
        assert int(response.headers["retry-after"]) > 0
    metrics = router.get("/metrics").text
    assert "ratchet_votes_total{" not in metrics
    assert 'ratchet_events_not_stored_total{arm="primary"} 2.0' in metrics
