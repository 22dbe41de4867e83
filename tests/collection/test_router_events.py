"""What a router writes, over real HTTP, is what the collector decodes fast."""

from fastapi.responses import JSONResponse

from ratchet.collection import decode_json
from ratchet.events import Feedback, Interaction
from ratchet.ingest.landing import EventType, landed, lines
from ratchet.store import LocalStore
from support.router_client import LEFT, Start, ask, stub
from support.served_models import serve, start

__all__ = ["serve", "start"]  # fixtures

ANSWER = {"choices": [{"message": {"content": "Blue."}, "finish_reason": "stop"}], "usage": {"completion_tokens": 2}}


def test_no_line_of_a_router_needs_the_models(start: Start, serve, lake: LocalStore):
    router = start(**LEFT, arm="canary", pool_url=serve(stub(lambda: JSONResponse(ANSWER))))
    response = ask(router, user="u1", metadata={"conversation_id": "c1", "tenant": "t1"}, seed=3)
    headers = {"authorization": f"Bearer {response.headers['x-feedback-token']}"}
    for kind, value in (("thumb", 1), ("rating", 4), ("correction", "Red."), ("comment", "hm"), ("dwell_ms", 12)):
        router.post("/v1/feedback", json={"kind": kind, "value": value}, headers=headers).raise_for_status()
    assert (decoded(lake, "interaction", Interaction), decoded(lake, "feedback", Feedback)) == (1, 5)


def decoded(lake: LocalStore, event_type: EventType, model: type) -> int:
    written = [line for key in landed(lake, event_type) for _, line in lines(lake, key)]
    return len([decode_json._decoder(model).decode(line) for line in written])
