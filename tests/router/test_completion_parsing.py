import json

import pytest

from ratchet.router.completion_parsing import ParsedCompletion, read_answer, read_stream

USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}


def stream(*chunks: object) -> bytes:
    return b"".join(b"data: %s\n\n" % json.dumps(chunk).encode() for chunk in chunks) + b"data: [DONE]\n\n"


def delta(reason: str | None = None, **content: str) -> dict[str, object]:
    return {"choices": [{"index": 0, "delta": content, "finish_reason": reason}]}


def test_completion_is_read() -> None:
    choice = {"message": {"role": "assistant", "content": "Hello."}, "finish_reason": "stop"}
    assert read_answer(json.dumps({"choices": [choice], "usage": USAGE}).encode()) == ParsedCompletion(
        "Hello.", "stop", 3, 2
    )


def test_stream_is_put_together() -> None:
    body = stream(delta(role="assistant"), delta(content="Hel"), delta(content="lo é"), delta("length"))
    assert read_stream(body) == ParsedCompletion("Hello é", "length", 0, 0)
    counted = {"choices": [], "usage": USAGE}
    assert read_stream(stream(delta(content="Hi"), delta("stop"), counted)) == ParsedCompletion("Hi", "stop", 3, 2)


def test_stream_that_broke_off_is_no_answer() -> None:
    with pytest.raises(ValueError, match="no whole stream"):
        read_stream(stream(delta(content="Hel")))


@pytest.mark.parametrize("body", [b"", b"<html>", b"{}", b'{"choices": []}', b"[1]"])
def test_other_bodies_are_no_answer(body: bytes) -> None:
    with pytest.raises(ValueError):
        read_answer(body)
