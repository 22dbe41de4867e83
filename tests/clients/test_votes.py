"""Each kind of vote that `ratchet-client` can send, at a real router: cast, found in the lake, and taken back."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from ratchet_client import Ratchet, RatchetError, completion_id
from tests.clients.matrix import KEY, pool_and_router

from ratchet.store import LocalStore
from support.router_client import interactions, votes

ASKED: list[Any] = [{"role": "user", "content": "Why is the sky blue?"}]


@pytest.fixture
def router_url(tmp_path: Path) -> Iterator[str]:
    with pool_and_router(tmp_path) as (_, url):
        yield f"{url}/v1"


@pytest.fixture
def chats(router_url: str) -> Iterator[Any]:
    with openai.OpenAI(base_url=router_url, api_key=KEY, max_retries=0) as client:
        yield client.chat.completions


KINDS = [
    ("thumb", {"up": False, "comment": "too long", "tags": ["length"]}, -1),
    ("rating", {"rating": 4}, 4),
    ("correction", {"correction": "Because of the air."}, "Because of the air."),
    ("comment", {"up": None, "comment": "hm"}, "hm"),
]


@pytest.mark.parametrize(("kind", "fields", "value"), KINDS)
def test_a_vote_of_each_kind_is_taken_and_taken_back(
    router_url: str, chats: Any, tmp_path: Path, kind: str, fields: dict[str, Any], value: object
) -> None:
    completion = chats.create(model="assistant", messages=ASKED)
    with Ratchet(router_url, KEY) as router:
        assert router.vote(completion, user="ann", **fields) != router.retract(completion, kind, user="ann")
    [answered] = interactions(LocalStore(tmp_path))
    cast, taken_back = votes(LocalStore(tmp_path))
    assert (cast.interaction_id, cast.subject_id) == (answered.interaction_id, "app/ann")
    assert (cast.kind, cast.value, cast.is_retracted) == (kind, value, False)
    assert (taken_back.kind, taken_back.subject_id, taken_back.is_retracted) == (kind, "app/ann", True)
    assert cast.comment == (fields.get("comment") if kind != "comment" else None)
    assert cast.tags == fields.get("tags")


def test_a_completion_is_better_than_another(router_url: str, chats: Any, tmp_path: Path) -> None:
    lost, won = (chats.create(model="assistant", messages=ASKED) for _ in range(2))
    with Ratchet(router_url, KEY) as router:
        router.vote(won, better_than=lost)
        router.retract(won, "preference")
    first, second = sorted(interactions(LocalStore(tmp_path)), key=lambda one: one.served_at)
    cast, taken_back = votes(LocalStore(tmp_path))
    assert cast.interaction_id == taken_back.interaction_id == second.interaction_id
    assert cast.value == first.interaction_id
    assert taken_back.is_retracted


def test_a_choice_is_better_than_another_of_the_same_completion(router_url: str, chats: Any, tmp_path: Path) -> None:
    completion = chats.create(model="assistant", messages=ASKED, n=2)
    with Ratchet(router_url, KEY) as router:
        router.vote(completion, choice=1, better_than=0)
        router.retract(completion, "preference", choice=1)
    by_answer = {one.response: one.interaction_id for one in interactions(LocalStore(tmp_path))}
    cast, _ = votes(LocalStore(tmp_path))
    asked = "You said: Why is the sky blue?"
    assert (cast.interaction_id, cast.value) == (by_answer[f"{asked} (1)"], by_answer[asked])


def test_a_vote_needs_the_tenants_key(router_url: str, chats: Any, tmp_path: Path) -> None:
    completion = chats.create(model="assistant", messages=ASKED)
    with Ratchet(router_url, "sk-guessed-with-many-characters") as router, pytest.raises(RatchetError) as found:
        router.vote(completion)
    assert found.value.status == 401
    with Ratchet(router_url, KEY) as router, pytest.raises(RatchetError):
        router.vote(completion_id(completion)[:-4] + "AAAA")  # an id that the router never gave
    assert votes(LocalStore(tmp_path)) == []
