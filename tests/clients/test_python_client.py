"""`ratchet-client` for Python: what it sends, finds in an answer, sends again, and says of faults."""

import asyncio
import http.server
import json
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import ratchet_client
from ratchet_client import AsyncRatchet, Ratchet, RatchetError, completion_id

ID = "chatcmpl-gAAAAABnAsealedText_-0123456789=="
POOLS_ID = "resp_00000001"


class Recorder(http.server.ThreadingHTTPServer):
    """A router's /v1/feedback over real HTTP: records what it gets and answers as told, 200 after that."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.got: list[tuple[dict[str, Any], str | None]] = []
        self.paths: list[str] = []
        self.answers: list[tuple[int, dict[str, str], str]] = []
        self.url = f"http://127.0.0.1:{self.server_port}/v1"


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Recorder

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.got.append((body, self.headers["authorization"]))
        self.server.paths.append(self.path)
        taken = (200, {}, json.dumps({"feedback_id": f"f{len(self.server.got)}"}))
        status, headers, text = self.server.answers.pop(0) if self.server.answers else taken
        if status == 0:
            self.close_connection = True  # a router that dies before it answers
            return
        self.send_response(status)
        for name, value in {**headers, "content-length": str(len(text))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    with Recorder() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def router(recorder: Recorder) -> Iterator[Ratchet]:
    with Ratchet(recorder.url, "sk-key", timeout_s=5) as client:
        yield client


def sent(recorder: Recorder) -> dict[str, Any]:
    body, _ = recorder.got[-1]
    return {name: value for name, value in body.items() if name not in ("id", "feedback_id", "choice")}


@pytest.mark.parametrize(
    ("fields", "body"),
    [
        ({}, {"kind": "thumb", "value": 1}),
        ({"up": False, "user": "ann"}, {"kind": "thumb", "value": -1, "user": "ann"}),
        ({"comment": "good", "tags": ["tone"]}, {"kind": "thumb", "value": 1, "comment": "good", "tags": ["tone"]}),
        ({"up": None, "comment": "hm"}, {"kind": "comment", "value": "hm"}),
        ({"rating": 4, "comment": "fine"}, {"kind": "rating", "value": 4, "comment": "fine"}),
        ({"correction": "Blue."}, {"kind": "correction", "value": "Blue."}),
        ({"better_than": {"id": "chatcmpl-other"}}, {"kind": "preference", "value": "chatcmpl-other"}),
        ({"better_than": 0, "choice": 1}, {"kind": "preference", "value": 0}),
    ],
)
def test_a_vote_is_one_kind_and_one_value(
    recorder: Recorder, router: Ratchet, fields: dict[str, Any], body: dict[str, Any]
) -> None:
    assert router.vote({"id": ID}, **fields) == "f1"
    assert sent(recorder) == body
    [(whole, authorization)] = recorder.got
    assert (whole["id"], whole["choice"], authorization) == (ID, fields.get("choice", 0), "Bearer sk-key")
    assert recorder.paths == ["/v1/feedback"]


def test_a_vote_is_taken_back(recorder: Recorder, router: Ratchet) -> None:
    router.retract(ID, user="ann")
    assert sent(recorder) == {"kind": "thumb", "value": 1, "is_retracted": True, "user": "ann"}
    with pytest.raises(RatchetError, match="known are thumb, rating"):
        router.retract(ID, "thumbs")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rating": 3, "correction": "x"}, "rating and correction are several votes"),
        ({"up": False, "rating": 1}, "rating and up=False are several votes"),
        ({"up": None}, "an empty vote"),
    ],
)
def test_several_votes_or_none_are_refused(router: Ratchet, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(RatchetError, match=message):
        router.vote(ID, **fields)


@pytest.mark.parametrize(
    "answer",
    [
        ID,
        {"id": ID},
        SimpleNamespace(id=ID, _request_id=None),
        SimpleNamespace(id=POOLS_ID, _request_id=ID),
        SimpleNamespace(response=SimpleNamespace(headers={"x-request-id": ID})),
        SimpleNamespace(id="run-1", response_metadata={"id": ID}),
        {"messages": [SimpleNamespace(id="1"), SimpleNamespace(id="2", response_metadata={"id": ID})]},
        SimpleNamespace(raw={"id": ID}),
        SimpleNamespace(_raw_response=SimpleNamespace(id=ID)),
        SimpleNamespace(response=SimpleNamespace(provider_response_id=ID)),
        SimpleNamespace(response_metadata={"headers": {"x-request-id": ID}}),
        SimpleNamespace(raw_responses=[SimpleNamespace(output=[SimpleNamespace(provider_data={"response_id": ID})])]),
        SimpleNamespace(raw_responses=[None, SimpleNamespace(response_id=POOLS_ID, request_id=ID)]),
    ],
)
def test_an_answer_shows_its_id(answer: object) -> None:
    assert completion_id(answer) == ID


@pytest.mark.parametrize("answer", [{}, {"id": POOLS_ID}, None, 7, [], SimpleNamespace(raw_responses=[])])
def test_an_answer_without_an_id_says_what_to_pass_instead(answer: object) -> None:
    with pytest.raises(RatchetError, match="x-request-id header as a text") as found:
        completion_id(answer)
    assert type(answer).__name__ in str(found.value)


@pytest.mark.parametrize(
    "fault", [(0, {}, ""), (429, {"retry-after": "0"}, "{}"), (503, {"retry-after": "0"}, "not stored")]
)
def test_a_vote_sent_again_is_the_same_vote(
    recorder: Recorder, router: Ratchet, fault: tuple[int, dict[str, str], str]
) -> None:
    recorder.answers = [fault]
    assert router.vote(ID) == "f2"
    router.vote(ID)
    first, again, another = [body["feedback_id"] for body, _ in recorder.got]
    assert first == again != another


def test_a_router_that_stays_busy_is_given_up(recorder: Recorder, router: Ratchet) -> None:
    busy = (503, {"retry-after": "0"}, json.dumps({"error": {"message": "the lake is full"}}))
    recorder.answers = [busy] * 9
    with pytest.raises(RatchetError, match="503: the lake is full") as found:
        router.vote(ID)
    assert found.value.status == 503
    assert len(recorder.got) == 3


def test_a_wait_that_no_caller_would_wait_is_not_waited(recorder: Recorder, router: Ratchet) -> None:
    recorder.answers = [(429, {"retry-after": "3600"}, "{}")]
    with pytest.raises(RatchetError, match="try again later"):
        router.vote(ID)
    assert len(recorder.got) == 1


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((401, {}, '{"error": {"message": "no such key"}}'), "no such key .set OPENAI_API_KEY"),
        ((404, {}, '{"detail": "Not Found"}'), "must be that of a Ratchet router, with its /v1"),
        ((422, {}, '{"error": {"message": "a rating is a whole number from 1 to 5"}}'), "from 1 to 5"),
        ((200, {}, "<html>a proxy's page</html>"), "proxy's page.* .it is no Ratchet router"),
        ((200, {}, "[]"), "it is no Ratchet router"),
    ],
)
def test_a_refused_vote_is_not_sent_again(
    recorder: Recorder, router: Ratchet, answer: tuple[int, dict[str, str], str], message: str
) -> None:
    recorder.answers = [answer]
    with pytest.raises(RatchetError, match=message):
        router.vote(ID)
    assert len(recorder.got) == 1


def test_a_router_that_is_not_there_is_said_so() -> None:
    with Ratchet("http://127.0.0.1:9/v1", max_retries=0) as client, pytest.raises(RatchetError, match="is the router"):
        client.vote(ID)


def test_the_asynchronous_client_sends_and_tries_again_alike(recorder: Recorder) -> None:
    async def cast() -> list[str]:
        async with AsyncRatchet(recorder.url) as client:
            return [await client.vote(ID, up=False), await client.retract(ID, user="ann")]

    recorder.answers = [(0, {}, ""), (503, {"retry-after": "0"}, "")]
    assert asyncio.run(cast()) == ["f3", "f4"]
    bodies = [body for body, _ in recorder.got]
    assert bodies[0] == bodies[1] == bodies[2]
    assert (bodies[2]["value"], bodies[3]["is_retracted"]) == (-1, True)
    assert {authorization for _, authorization in recorder.got} == {None}


def test_the_environment_names_the_router(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(RatchetError, match="Set OPENAI_BASE_URL"):
        ratchet_client.vote(ID)
    monkeypatch.setenv("OPENAI_BASE_URL", f"{recorder.url}/")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-environment")
    ratchet_client.vote(ID, up=False, comment="no")
    ratchet_client.retract(ID)
    assert [body.get("is_retracted", False) for body, _ in recorder.got] == [False, True]
    assert {authorization for _, authorization in recorder.got} == {"Bearer sk-of-the-environment"}
