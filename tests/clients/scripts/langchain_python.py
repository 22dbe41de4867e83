"""The cells of LangChain for Python: its chat model, its agent, its structured output."""

import harness
import ratchet_client
from langchain.agents import create_agent
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel

model = ChatOpenAI(model=harness.MODEL, max_retries=0)


class Place(BaseModel):
    city: str
    is_capital: bool


@tool
def temperature(city: str) -> str:
    """The temperature in a city."""
    return "21 degrees"


def chat():
    return model.invoke([("system", "Be short."), ("user", harness.ASKED)]).model_dump()


def stream():
    return [chunk.model_dump() for chunk in model.stream(harness.ASKED)]


def tools():
    agent = create_agent(model, [temperature])
    return [message.model_dump() for message in agent.invoke({"messages": [("user", harness.TOOL_ASKED)]})["messages"]]


def schema():
    return model.with_structured_output(Place).invoke(harness.SCHEMA_ASKED).model_dump()


def image():
    parts = [{"type": "text", "text": harness.IMAGE_ASKED}]
    parts += [{"type": "image", "base64": harness.PIXEL, "mime_type": "image/png"}]
    return model.invoke([{"role": "user", "content": parts}]).model_dump()


def error():
    return [harness.raised(model.invoke, f"[error {status}]") for status in harness.ERRORS]


def busy():
    return harness.without_words(harness.raised(model.invoke, harness.BUSY))


def timeout():
    return harness.raised(ChatOpenAI(model=harness.MODEL, max_retries=0, timeout=harness.TIMEOUT_S).invoke, "[slow]")


def disconnect():
    before = harness.left()
    chunks = model.stream("[long]")
    first = next(chunks).model_dump()
    chunks.close()
    return [first, harness.pool_is_told(before)]


def responses():
    return ChatOpenAI(model=harness.MODEL, max_retries=0, use_responses_api=True).invoke(harness.ASKED).model_dump()


def embeddings():
    return OpenAIEmbeddings(model=harness.MODEL, check_embedding_ctx_length=False).embed_query(harness.ASKED)


def vote():
    return ratchet_client.vote(model.invoke(harness.VOTE_ASKED), up=True, user="ann")


def vote_stream():
    with_headers = ChatOpenAI(model=harness.MODEL, max_retries=0, include_response_headers=True)
    first, *rest = with_headers.stream(harness.VOTE_ASKED)
    return ratchet_client.vote(sum(rest, first), up=False, user="ann")


def two_turns():
    for first, second in harness.questions():
        messages = [("user", first)]
        messages.append(model.invoke(messages))
        model.invoke([*messages, ("user", second)])


harness.main(globals())
