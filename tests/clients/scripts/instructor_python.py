"""The cells of instructor: a model of Pydantic's from each answer, by tool calls (its default) or by a JSON schema."""

import harness
import instructor
import openai
import ratchet_client
from pydantic import BaseModel

client = instructor.from_openai(openai.OpenAI(max_retries=0))
by_schema = instructor.from_openai(openai.OpenAI(max_retries=0), mode=instructor.Mode.JSON_SCHEMA)


class Place(BaseModel):
    city: str
    is_capital: bool


def ask(text, client=client, **fields):
    return client.create(
        model=harness.MODEL, response_model=Place, messages=[harness.user(text)], max_retries=0, **fields
    )


def chat():
    place, completion = client.create_with_completion(
        model=harness.MODEL, response_model=Place, messages=[harness.user(harness.ASKED)], max_retries=0
    )
    return [place.model_dump(), completion.model_dump()]


def stream():
    chunks = client.create_partial(
        model=harness.MODEL, response_model=Place, messages=[harness.user(harness.ASKED)], max_retries=0
    )
    return [place.model_dump() for place in chunks]


def tools():
    return ask(harness.TOOL_ASKED).model_dump()


def schema():
    return ask(harness.SCHEMA_ASKED, by_schema).model_dump()


def image():
    parts = [harness.IMAGE_ASKED, instructor.Image.from_base64(harness.PICTURE)]
    place = by_schema.create(
        model=harness.MODEL, response_model=Place, messages=[{"role": "user", "content": parts}], max_retries=0
    )
    return place.model_dump()


def error():
    return [harness.raised(ask, f"[error {status}]") for status in harness.ERRORS]


def busy():
    return harness.without_words(harness.raised(ask, harness.BUSY))


def timeout():
    return harness.raised(ask, "[slow]", timeout=harness.TIMEOUT_S)


def vote():
    return ratchet_client.vote(ask(harness.VOTE_ASKED, by_schema), up=True, user="ann")


def two_turns():
    for first, second in harness.questions():
        messages = [harness.user(first)]
        place = by_schema.create(model=harness.MODEL, response_model=Place, messages=messages)
        messages += [{"role": "assistant", "content": place._raw_response.choices[0].message.content}]
        by_schema.create(model=harness.MODEL, response_model=Place, messages=[*messages, harness.user(second)])


harness.main(globals())
