"""The cells of OpenAI's own client for Python, of version 2 and 3."""

import harness
import openai
import ratchet_client
from pydantic import BaseModel

client = openai.OpenAI(max_retries=0)
TOOL = {
    "type": "function",
    "function": {
        "name": "temperature",
        "description": "The temperature in a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


def ask(messages, **fields):
    return client.chat.completions.create(model=harness.MODEL, messages=messages, **fields)


class Place(BaseModel):
    city: str
    is_capital: bool


def models():
    return [model.id for model in client.models.list()]


def chat():
    return ask([harness.user(harness.ASKED)], user="ann", seed=1, temperature=0).model_dump()


def several():
    return ask([harness.user(harness.ASKED)], n=2).model_dump()


def stream():
    with ask([harness.user(harness.ASKED)], stream=True) as chunks:
        return [chunk.model_dump() for chunk in chunks]


def stream_usage():
    with ask([harness.user(harness.ASKED)], stream=True, stream_options={"include_usage": True}) as chunks:
        return [chunk.model_dump() for chunk in chunks]


def tools():
    messages = [harness.user(harness.TOOL_ASKED)]
    first = ask(messages, tools=[TOOL])
    [call] = first.choices[0].message.tool_calls
    messages += [first.choices[0].message, {"role": "tool", "tool_call_id": call.id, "content": "21 degrees"}]
    return [first.model_dump(), ask(messages, tools=[TOOL]).model_dump()]


def schema():
    return client.chat.completions.parse(
        model=harness.MODEL, messages=[harness.user(harness.SCHEMA_ASKED)], response_format=Place
    ).model_dump(warnings=False)


def image():
    content = [
        {"type": "text", "text": harness.IMAGE_ASKED},
        {"type": "image_url", "image_url": {"url": harness.PICTURE}},
    ]
    return ask([{"role": "user", "content": content}]).model_dump()


def error():
    return [harness.raised(ask, [harness.user(f"[error {status}]")]) for status in harness.ERRORS]


def busy():
    return harness.without_words(harness.raised(ask, [harness.user(harness.BUSY)]))


def timeout():
    return harness.raised(ask, [harness.user("[slow]")], timeout=harness.TIMEOUT_S)


def disconnect():
    before = harness.left()
    with ask([harness.user("[long]")], stream=True) as chunks:
        first = next(iter(chunks)).model_dump()
    return [first, harness.pool_is_told(before)]


def responses():
    return client.responses.create(model=harness.MODEL, input=harness.ASKED).model_dump()


def embeddings():
    return client.embeddings.create(model=harness.MODEL, input=harness.ASKED).model_dump()


def completions():
    return client.completions.create(model=harness.MODEL, prompt=harness.ASKED).model_dump()


def vote():
    return ratchet_client.vote(ask([harness.user(harness.VOTE_ASKED)]), up=True, user="ann")


def vote_stream():
    with ask([harness.user(harness.VOTE_ASKED)], stream=True) as chunks:
        *_, last = chunks
    return ratchet_client.vote(last, up=False, user="ann")


def vote_response():
    return ratchet_client.vote(client.responses.create(model=harness.MODEL, input=harness.VOTE_ASKED), user="ann")


def two_turns():
    for first, second in harness.questions():
        messages = [harness.user(first)]
        messages.append(ask(messages).choices[0].message)
        ask([*messages, harness.user(second)])


if __name__ == "__main__":
    harness.main(globals())
