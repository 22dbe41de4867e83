"""Run a client's cells and print what each gave as one line of JSON.

    OPENAI_BASE_URL=… OPENAI_API_KEY=… POOL_URL=… python openai_python.py [CELL …]

A cell is a function without arguments that returns what the client made of an answer. The client's environment runs
this file, so it imports nothing but Python's own. `two_turns`, run only if named, sends NUM_CHATS chats of two turns
without an id of chat or user, as a plain user of the client would.
"""

import asyncio
import inspect
import json
import os
import sys
import time
import urllib.request
from collections.abc import Callable
from typing import Any

MODEL = "assistant"
ASKED = "Why is the sky blue?"
SCHEMA_ASKED = "Where is the Eiffel tower?"
TOOL_ASKED = "How warm is it in Paris?"
IMAGE_ASKED = "What is this?"
VOTE_ASKED = "What is worth a vote?"
ERRORS = (400, 422, 429)
BUSY = "[error 503]"  # the router says so in words of its own: a pool's faults are not for its users
TIMEOUT_S = 0.4
# One transparent pixel.
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
PICTURE = f"data:image/png;base64,{PIXEL}"
CELLS = (
    "models", "chat", "several", "stream", "stream_usage", "tools", "schema", "image", "error", "busy", "timeout",
    "disconnect", "responses", "embeddings", "completions", "vote", "vote_stream", "vote_response",
)  # fmt: skip
NUM_CHATS = int(os.environ.get("NUM_CHATS", "40"))
LEFT_S = 5.0


def user(text: str) -> dict[str, Any]:
    """A user's message."""
    return {"role": "user", "content": text}


def raised(call: Callable[..., Any], *args: Any, **fields: Any) -> dict[str, Any]:
    """What a client's error says of a call that must fail: its class, and the status and words that it shows."""
    try:
        return {"answered": call(*args, **fields)}
    except Exception as error:  # whatever class the client has for it is the result
        return described(error)


async def raised_async(call: Callable[..., Any], *args: Any, **fields: Any) -> dict[str, Any]:
    """The same of a coroutine function."""
    try:
        return {"answered": await call(*args, **fields)}
    except Exception as error:  # whatever class the client has for it is the result
        return described(error)


def described(error: BaseException) -> dict[str, Any]:
    """The class of an error, and what openai's own errors say besides."""
    names = ("status_code", "type", "param", "code", "body")
    shown = {name: getattr(error, name, None) for name in names}
    headers = getattr(getattr(error, "response", None), "headers", {})
    return {"error": type(error).__name__, "says": str(error), "retry_after": headers.get("retry-after"), **shown}


def without_words(shown: dict[str, Any]) -> dict[str, Any]:
    """What an error of a pool that is busy must keep: the client's class of it, its status, when to come again."""
    return {name: shown[name] for name in ("error", "status_code", "retry_after")}


def left() -> int:
    """How many streams the pool saw left."""
    with urllib.request.urlopen(f"{os.environ['POOL_URL']}/left") as answer:
        return int(answer.read())


def pool_is_told(num_before: int) -> bool:
    """Whether the pool hears within some seconds that its stream was left."""
    deadline = time.monotonic() + LEFT_S
    while left() == num_before:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def questions() -> list[tuple[str, str]]:
    """Both turns of each chat."""
    return [(f"Tell me about the number {number}.", "Why?") for number in range(NUM_CHATS)]


def main(script: dict[str, Any]) -> None:
    """Run the functions of a script that the command line names, or all of its cells."""
    results: dict[str, Any] = {}
    with asyncio.Runner() as runner:
        for name in sys.argv[1:] or [name for name in CELLS if name in script]:
            try:
                result = script[name]()
                results[name] = {"gave": runner.run(result) if inspect.iscoroutine(result) else result}
            except Exception as error:  # a cell that fails is a finding; the others go on
                results[name] = {"failed": f"{type(error).__name__}: {error}"[:500]}
    print(json.dumps(results, default=str))
