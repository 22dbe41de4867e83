"""The cells of LlamaIndex: its OpenAI-like model, its function agent, its structured prediction."""

import gc
import os

import harness
import ratchet_client
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.llms import ChatMessage, ImageBlock, TextBlock
from llama_index.core.prompts import PromptTemplate
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel

SETTINGS = {
    "model": harness.MODEL, "api_base": os.environ["OPENAI_BASE_URL"], "api_key": os.environ["OPENAI_API_KEY"],
    "is_chat_model": True, "is_function_calling_model": True, "max_retries": 0, "context_window": 8000,
}  # fmt: skip
model = OpenAILike(**SETTINGS)


class Place(BaseModel):
    city: str
    is_capital: bool


def temperature(city: str) -> str:
    """The temperature in a city."""
    return "21 degrees"


def shown(response):
    return [response.message.model_dump(), response.raw.model_dump()]


def ask(text, model=model):
    return model.chat([ChatMessage(role="user", content=text)])


def chat():
    return shown(ask(harness.ASKED))


def stream():
    chunks = model.stream_chat([ChatMessage(role="user", content=harness.ASKED)])
    return [[chunk.delta, chunk.raw.model_dump()] for chunk in chunks]


async def tools():
    agent = FunctionAgent(tools=[temperature], llm=model, streaming=False)
    result = await agent.run(harness.TOOL_ASKED)
    return [result.response.model_dump(), [call.model_dump() for call in result.tool_calls]]


def schema():
    return model.structured_predict(Place, PromptTemplate(harness.SCHEMA_ASKED)).model_dump()


def image():
    blocks = [TextBlock(text=harness.IMAGE_ASKED), ImageBlock(url=harness.PICTURE)]
    return shown(model.chat([ChatMessage(role="user", blocks=blocks)]))


def error():
    return [harness.raised(ask, f"[error {status}]") for status in harness.ERRORS]


def busy():
    return harness.without_words(harness.raised(ask, harness.BUSY))


def timeout():
    return harness.raised(ask, "[slow]", OpenAILike(**SETTINGS, timeout=harness.TIMEOUT_S))


def disconnect():
    before = harness.left()
    chunks = model.stream_chat([ChatMessage(role="user", content="[long]")])
    first = next(chunks).raw.model_dump()
    del chunks  # its streams cannot be closed
    gc.collect()
    return [first, harness.pool_is_told(before)]


def vote():
    return ratchet_client.vote(ask(harness.VOTE_ASKED), up=True, user="ann")


def vote_stream():
    *_, last = model.stream_chat([ChatMessage(role="user", content=harness.VOTE_ASKED)])
    return ratchet_client.vote(last, up=False, user="ann")


def two_turns():
    for first, second in harness.questions():
        messages = [ChatMessage(role="user", content=first)]
        messages.append(model.chat(messages).message)
        model.chat([*messages, ChatMessage(role="user", content=second)])


harness.main(globals())
