"""The cells of LiteLLM's SDK, with its provider for any OpenAI-compatible server."""

import json
import os

import harness

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # or it asks for prices on the Internet

import litellm
import ratchet_client
from pydantic import BaseModel

litellm.suppress_debug_info = True
TOOL = {
    "type": "function",
    "function": {
        "name": "temperature",
        "description": "The temperature in a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


class Place(BaseModel):
    city: str
    is_capital: bool


def ask(messages, **fields):
    messages = [harness.user(messages)] if isinstance(messages, str) else messages
    address = {"api_base": os.environ["OPENAI_BASE_URL"], "api_key": os.environ["OPENAI_API_KEY"]}
    return litellm.completion(model=f"openai/{harness.MODEL}", messages=messages, max_retries=0, **address, **fields)


def chat():
    return ask(harness.ASKED, user="ann").model_dump()


def several():
    return ask(harness.ASKED, n=2).model_dump()


def stream():
    return [chunk.model_dump() for chunk in ask(harness.ASKED, stream=True)]


def tools():
    messages = [harness.user(harness.TOOL_ASKED)]
    first = ask(messages, tools=[TOOL])
    [call] = first.choices[0].message.tool_calls
    messages += [first.choices[0].message, {"role": "tool", "tool_call_id": call.id, "content": "21 degrees"}]
    return [first.model_dump(), ask(messages, tools=[TOOL]).model_dump()]


def schema():
    return json.loads(ask(harness.SCHEMA_ASKED, response_format=Place).choices[0].message.content)


def image():
    parts = [{"type": "text", "text": harness.IMAGE_ASKED}]
    parts += [{"type": "image_url", "image_url": {"url": harness.PICTURE}}]
    return ask([{"role": "user", "content": parts}]).model_dump()


def error():
    return [harness.raised(ask, f"[error {status}]") for status in harness.ERRORS]


def busy():
    return harness.without_words(harness.raised(ask, harness.BUSY))


def timeout():
    return harness.raised(ask, "[slow]", timeout=harness.TIMEOUT_S)


def disconnect():
    before = harness.left()
    chunks = ask("[long]", stream=True)
    first = next(chunks).model_dump()
    chunks.completion_stream.close()
    return [first, harness.pool_is_told(before)]


def vote():
    return ratchet_client.vote(ask(harness.VOTE_ASKED), up=True, user="ann")


def vote_stream():
    *_, last = ask(harness.VOTE_ASKED, stream=True)
    return ratchet_client.vote(last, up=False, user="ann")


def two_turns():
    for first, second in harness.questions():
        messages = [harness.user(first)]
        messages.append(ask(messages).choices[0].message)
        ask([*messages, harness.user(second)])


harness.main(globals())
