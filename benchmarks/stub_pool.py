"""A model pool that answers at once, at hardly any cost: `python -m benchmarks.stub_pool PORT`."""

import asyncio
import json
import sys

MODELS = {"object": "list", "data": [{"id": "base-model", "object": "model", "parent": None}]}
ANSWER = {
    "id": "chatcmpl-1", "object": "chat.completion", "created": 0, "model": "base-model",
    "choices": [
        {
            "index": 0, "finish_reason": "stop",
            "message": {"role": "assistant", "content": "Air scatters short waves of light more than long ones."},
        }
    ],
    "usage": {"prompt_tokens": 12, "completion_tokens": 11, "total_tokens": 23},
}  # fmt: skip


NUM_CHUNKS, PAUSE_S = 12, 0.01  # of a stream


def _chunks() -> list[bytes]:
    head = {**{name: ANSWER[name] for name in ("id", "created", "model")}, "object": "chat.completion.chunk"}
    choices = [
        {"index": 0, "delta": {"content": f"word{number} "}, "finish_reason": None} for number in range(NUM_CHUNKS)
    ]
    choices.append({"index": 0, "delta": {}, "finish_reason": "stop"})
    events = [json.dumps({**head, "choices": [choice]}) for choice in choices]
    return [f"data: {event}\n\n".encode() for event in [*events, "[DONE]"]]


async def _stream(writer: asyncio.StreamWriter, chunks: list[bytes]) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
    for chunk in chunks:
        writer.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
        await asyncio.sleep(PAUSE_S)
    writer.write(b"0\r\n\r\n")


def _response(content: object) -> bytes:
    body = json.dumps(content).encode()
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    models, answer, chunks = _response(MODELS), _response(ANSWER), _chunks()
    try:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = head.partition(b"content-length:")[2].partition(b"\r\n")[0]
            body = await reader.readexactly(int(length or 0))
            if b'"stream":true' in body.replace(b" ", b""):
                await _stream(writer, chunks)
                continue
            writer.write(models if head.startswith(b"get") else answer)
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def main(port: int) -> None:
    server = await asyncio.start_server(serve, "127.0.0.1", port)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
