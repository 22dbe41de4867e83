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
    body,
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


KEYS = "acme=k1-with-many-characters,other=k2-with-many-characters"
ACME, OTHER = ({"authorization": f"Bearer {key.partition('=')[2]}"} for key in KEYS.split(","))


def test_the_completions_id_and_the_tenants_key_are_enough_at_either_arm(start: Start, lake: LocalStore) -> None:
    asking = start(**LEFT, arm="canary", api_keys=KEYS)
    asking.headers.update(ACME)
    answer = ask(asking, user="u1")
    own_id = answer.json()["id"]
    assert own_id == answer.headers["x-request-id"]
    primary = start(pool_url=NOWHERE, arm="primary", api_keys=KEYS)
    like(primary, ACME, id=own_id).raise_for_status()
    like(primary, ACME, id=own_id, user="u2", value=-1, comment="no", tags=["style"]).raise_for_status()
    asker, other = sorted(votes(lake), key=lambda vote: vote.subject_id)
    assert (asker.interaction_id, asker.subject_id) == (answer.headers["x-interaction-id"], "acme/u1")
    assert (asker.tenant, asker.adapter_digest, asker.arm) == ("acme", "d1", "canary")
    assert (other.subject_id, other.value, other.comment, other.tags) == ("acme/u2", -1, "no", ["style"])
    assert other.interaction_id == asker.interaction_id


def test_an_id_lets_nobody_else_vote(start: Start, lake: LocalStore) -> None:
    asking = start(**LEFT, api_keys=KEYS)
    asking.headers.update(ACME)
    own_id = ask(asking).json()["id"]
    del asking.headers["authorization"]
    assert like(asking, {}, id=own_id).status_code == 401, "an id is in logs, and opens nothing by itself"
    assert like(asking, {"authorization": f"Bearer {own_id}"}, id=own_id).status_code == 401
    assert like(asking, OTHER, id=own_id).status_code == 404, "of another tenant"
    assert like(asking, ACME).status_code == 401, "of which answer?"
    for place in range(len("chatcmpl-"), len(own_id) - 1, 20):
        changed = own_id[:place] + ("A" if own_id[place] != "A" else "B") + own_id[place + 1 :]
        assert like(asking, ACME, id=changed).status_code == 404
    for nonsense in ("chatcmpl-", "chatcmpl-123", "ä" * 200, "x" * 4000):
        assert like(asking, ACME, id=nonsense).status_code == 404
    assert votes(lake) == []


def test_on_a_laptop_without_keys_the_id_is_enough(start: Start, lake: LocalStore) -> None:
    router = start(**LEFT)
    first, second = (ask(router, user="u1").json()["id"] for _ in range(2))
    like(router, {"authorization": "Bearer whatever a client sends"}, id=first, user="u2").raise_for_status()
    like(router, {}, id=second, kind="preference", value=first).raise_for_status()
    thumb, preference = votes(lake)
    assert thumb.subject_id == "u2"
    assert preference.value == thumb.interaction_id, "the loser is named by the id that its client saw"


def test_of_unnamed_people_each_counts_and_one_script_is_capped(start: Start, lake: LocalStore) -> None:
    router = start(**LEFT, api_keys=KEYS, votes_per_minute=10)
    router.headers.update(ACME)
    for number in range(70):
        answer = ask(router, messages=[{"role": "user", "content": f"I am {number}"}], max_tokens=1)
        assert like(router, ACME, id=answer.json()["id"]).status_code == 200
    said = [{"role": "user", "content": "Hi"}]
    statuses = []
    for number in range(20):
        answer = ask(router, messages=said, max_tokens=1)
        statuses.append(like(router, ACME, id=answer.json()["id"]).status_code)
        text = answer.json()["choices"][0]["message"]["content"]
        said += [{"role": "assistant", "content": text}, {"role": "user", "content": f"And {number}?"}]
        said = said if len(said) < 40 else said[:2]  # the tiny model's context is short: another branch
    assert statuses[:10] == [200] * 10
    assert 429 in statuses[10:], "turns of one chat are one person's"
    people = {vote.subject_id for vote in votes(lake)}
    assert len(people) == 71


def test_no_preference_reaches_another_tenants_answer(start: Start, lake: LocalStore) -> None:
    router = start(**LEFT, api_keys=KEYS)
    theirs = router.post("/v1/chat/completions", json=body(), headers=ACME).json()["id"]
    ours = router.post("/v1/chat/completions", json=body(), headers=OTHER).json()["id"]
    assert like(router, OTHER, id=ours, kind="preference", value=theirs).status_code == 400
    assert votes(lake) == []


def test_a_token_and_an_id_must_be_of_one_answer_and_one_person(start: Start, lake: LocalStore) -> None:
    router = start(**LEFT)
    one, other = ask(router, user="u1"), ask(router, user="u1")
    mine = {"authorization": f"Bearer {one.headers['x-feedback-token']}"}
    like(router, mine, id=one.json()["id"]).raise_for_status()
    assert like(router, mine, id=other.json()["id"]).status_code == 400
    assert like(router, mine, user="u2").status_code == 400
    assert like(router, mine, kind=[], is_retracted=True).status_code == 400
    like(router, mine, value=None, is_retracted=True).raise_for_status()
    assert len(votes(lake)) == 2
