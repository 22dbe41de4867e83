"""A model pool without a model that can do all that OpenAI's clients ask for: tools, schemas, pictures, faults.

The request decides the answer: tools are called once, a schema is filled, a picture is measured, and a word in brackets
in the last user message asks for a fault: [error 429], [slow], [long]. So a client's answers are the same each time.
"""

import asyncio
import base64
import itertools
import json
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

MODEL = "assistant"  # as the router's public name, so that an answer says the same on both ways
SLOW_S = 3.0
LONG_WORDS, WORD_S = 400, 0.02
FILLED = {"string": "Paris", "integer": 3, "number": 1.5, "boolean": True, "null": None}
USAGE = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}


def create_app() -> FastAPI:
    """Return the pool's app. `state.asked` are the bodies it got; GET /left counts the streams that a client left."""
    app, numbers = FastAPI(), itertools.count(1)
    app.state.asked, app.state.left = [], 0
    card = {"id": MODEL, "object": "model", "created": 1, "owned_by": "pool", "parent": None}

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [card]}

    @app.get("/left")
    async def left() -> int:
        return int(app.state.left)

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> Response:
        body, number = await request.json(), next(numbers)
        app.state.asked.append(body)
        headers = {"x-request-id": f"req_{number}"}
        if fault := await _fault(_last_text(body["messages"]), headers):
            return fault
        head = {"id": f"chatcmpl-{number:08d}", "created": 1_700_000_000 + number, "model": body["model"]}
        answers = [_answer(body, index) for index in range(body.get("n") or 1)]
        if body.get("stream"):
            stream = _counted(app, _events(body, head, answers))
            return StreamingResponse(stream, media_type="text/event-stream", headers=headers)
        choices = [
            {"index": index, "message": message, "logprobs": None, "finish_reason": _ending(message)}
            for index, message in enumerate(answers)
        ]
        whole = {**head, "object": "chat.completion", "choices": choices, "usage": USAGE}
        return JSONResponse(whole, headers=headers)

    @app.post("/v1/responses")
    async def respond(request: Request) -> Response:
        body, number = await request.json(), next(numbers)
        app.state.asked.append(body)
        return JSONResponse(_response(body, number), headers={"x-request-id": f"req_{number}"})

    @app.post("/v1/embeddings")
    async def embed(request: Request) -> dict[str, Any]:
        body = await request.json()
        vectors = [{"object": "embedding", "index": 0, "embedding": [0.5, -0.25]}]
        usage = {"prompt_tokens": 1, "total_tokens": 1}
        return {"object": "list", "model": body["model"], "data": vectors, "usage": usage}

    @app.post("/v1/completions")
    async def complete(request: Request) -> dict[str, Any]:
        body, number = await request.json(), next(numbers)
        choice = {"index": 0, "text": f" You said: {body['prompt']}", "finish_reason": "stop", "logprobs": None}
        head = {"id": f"cmpl-{number:08d}", "object": "text_completion", "created": 1, "model": body["model"]}
        return {**head, "choices": [choice], "usage": USAGE}

    return app


async def _fault(asked: str, headers: dict[str, str]) -> Response | None:
    if "[slow]" in asked:
        await asyncio.sleep(SLOW_S)
    if found := re.search(r"\[error (\d+)\]", asked):
        status = int(found[1])
        error = {"message": f"The pool says {status}.", "type": "pool_error", "param": "messages", "code": "pool_code"}
        return JSONResponse({"error": error}, status, {**headers, "retry-after": "1"})
    return None


def _text(content: Any) -> str:
    parts = content if isinstance(content, list) else [{"text": content or ""}]
    return " ".join(str(part.get("text", "")) for part in parts).strip()


def _last_text(messages: list[dict[str, Any]]) -> str:
    return next((_text(message.get("content")) for message in reversed(messages) if message["role"] == "user"), "")


def _answer(body: dict[str, Any], index: int) -> dict[str, Any]:
    messages, tools = body["messages"], body.get("tools")
    results = [_text(message.get("content")) for message in messages if message["role"] == "tool"]
    if tools and not results and body.get("tool_choice") != "none":
        return {"role": "assistant", "content": None, "tool_calls": [_call(tools, body.get("tool_choice"))]}
    return {"role": "assistant", "content": _words(body, results, index)}


def _call(tools: list[dict[str, Any]], wanted: Any) -> dict[str, Any]:
    functions = [tool["function"] for tool in tools]
    name = wanted["function"]["name"] if isinstance(wanted, dict) else functions[0]["name"]
    [parameters] = [one.get("parameters") or {} for one in functions if one["name"] == name]
    arguments = json.dumps(_filled(parameters, parameters))
    return {"id": "call_0", "type": "function", "function": {"name": name, "arguments": arguments}}


def _words(body: dict[str, Any], results: list[str], index: int) -> str:
    form = body.get("response_format") or {}
    if form.get("type") == "json_schema":
        schema = form["json_schema"]["schema"]
        return json.dumps(_filled(schema, schema))
    if form.get("type") == "json_object":
        return '{"city": "Paris"}'
    asked = _last_text(body["messages"])
    if "[long]" in asked:
        return " ".join(f"word{number}" for number in range(LONG_WORDS))
    seen = list(_pictures(body["messages"]))
    said = f"The tool said {'; '.join(results)}." if results else f"You said: {asked}"
    return said + (f" I saw {', '.join(seen)}." if seen else "") + (f" ({index})" if index else "")


def _pictures(messages: list[dict[str, Any]]) -> Iterator[str]:
    for message in messages:
        for part in message["content"] if isinstance(message.get("content"), list) else ():
            if part["type"] == "image_url":
                kind, _, data = part["image_url"]["url"].partition(";base64,")
                yield f"{kind.removeprefix('data:')} of {len(base64.b64decode(data))} bytes"


def _filled(schema: dict[str, Any], root: dict[str, Any]) -> Any:
    """An example of a JSON schema, as far as the clients' schemas go."""
    if "$ref" in schema:
        return _filled(root["$defs"][schema["$ref"].rpartition("/")[2]], root)
    if choices := schema.get("enum") or [schema[name] for name in ("const",) if name in schema]:
        return choices[0]
    if options := schema.get("anyOf"):
        return _filled(options[0], root)
    if schema.get("type") == "object":
        return {name: _filled(one, root) for name, one in schema.get("properties", {}).items()}
    if schema.get("type") == "array":
        return [_filled(schema.get("items", {}), root)]
    return FILLED[schema.get("type", "null")]


def _ending(message: dict[str, Any]) -> str:
    return "tool_calls" if message.get("tool_calls") else "stop"


async def _events(
    body: dict[str, Any], head: dict[str, Any], answers: list[dict[str, Any]]
) -> AsyncIterator[dict[str, Any]]:
    pause_s = WORD_S if "[long]" in _last_text(body["messages"]) else 0

    def chunk(index: int, delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return {**head, "object": "chat.completion.chunk", "choices": [choice]}

    for index, message in enumerate(answers):
        yield chunk(index, {"role": "assistant", "content": ""})
        for call in message.get("tool_calls", ()):
            arguments = call["function"]["arguments"]
            begun = {**call, "index": 0, "function": {**call["function"], "arguments": ""}}
            yield chunk(index, {"tool_calls": [begun]})
            for part in (arguments[:4], arguments[4:]):
                yield chunk(index, {"tool_calls": [{"index": 0, "function": {"arguments": part}}]})
        for word in re.findall(r"\S+\s*", message["content"] or ""):
            yield chunk(index, {"content": word})
            await asyncio.sleep(pause_s)
        yield chunk(index, {}, _ending(message))
    if (body.get("stream_options") or {}).get("include_usage"):
        yield {**head, "object": "chat.completion.chunk", "choices": [], "usage": USAGE}


async def _counted(app: FastAPI, events: AsyncIterator[dict[str, Any]]) -> AsyncIterator[str]:
    is_whole = False
    try:
        async for event in events:
            yield f"data: {json.dumps(event)}\n\n"
        yield "data: [DONE]\n\n"
        is_whole = True
    finally:
        app.state.left += not is_whole


def _response(body: dict[str, Any], number: int) -> dict[str, Any]:
    """An answer in the form of /v1/responses, to text without tools."""
    asked = body["input"] if isinstance(body["input"], str) else _text(body["input"][-1]["content"])
    text = {"type": "output_text", "text": f"You said: {asked}", "annotations": []}
    output = {"type": "message", "id": "msg_0", "role": "assistant", "status": "completed", "content": [text]}
    usage = {
        "input_tokens": 11,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": 7,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 18,
    }
    head = {"id": f"resp_{number:08d}", "object": "response", "created_at": 1_700_000_000 + number}
    return {
        **head, "status": "completed", "model": body["model"], "output": [output], "usage": usage, "tools": [],
        "tool_choice": "auto", "parallel_tool_calls": True, "error": None, "incomplete_details": None,
        "instructions": body.get("instructions"), "metadata": {}, "temperature": 1.0, "top_p": 1.0,
    }  # fmt: skip
