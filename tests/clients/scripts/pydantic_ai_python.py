"""The cells of Pydantic AI: its agent, over the OpenAI chat model."""

import asyncio

import harness
import openai
import ratchet_client
from pydantic import BaseModel
from pydantic_ai import Agent, BinaryContent
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.output import NativeOutput
from pydantic_ai.providers.openai import OpenAIProvider

provider = OpenAIProvider(openai_client=openai.AsyncOpenAI(max_retries=0))
model = OpenAIChatModel(harness.MODEL, provider=provider)
agent = Agent(model)


class Place(BaseModel):
    city: str
    is_capital: bool


def temperature(city: str) -> str:
    """The temperature in a city."""
    return "21 degrees"


def shown(result):
    parts = [part for message in result.all_messages() for part in message.parts]
    kept = ("content", "tool_name", "args", "tool_call_id", "part_kind")
    return [result.output, [{name: getattr(part, name, None) for name in kept} for part in parts], repr(result.usage)]


async def chat():
    return shown(await agent.run(harness.ASKED))


async def stream():
    async with agent.run_stream(harness.ASKED) as result:
        return [text async for text in result.stream_text(debounce_by=None)]


async def tools():
    return shown(await Agent(model, tools=[temperature]).run(harness.TOOL_ASKED))


async def schema():
    return (await Agent(model, output_type=NativeOutput(Place)).run(harness.SCHEMA_ASKED)).output.model_dump()


async def image():
    return shown(await agent.run([harness.IMAGE_ASKED, BinaryContent.from_data_uri(harness.PICTURE)]))


async def error():
    return [await harness.raised_async(agent.run, f"[error {status}]") for status in harness.ERRORS]


async def busy():
    return harness.without_words(await harness.raised_async(agent.run, harness.BUSY))


async def timeout():
    return await harness.raised_async(agent.run, "[slow]", model_settings={"timeout": harness.TIMEOUT_S})


async def disconnect():
    before = harness.left()
    async with agent.run_stream("[long]") as result:
        first = await anext(result.stream_text(debounce_by=None))
    return [first, await asyncio.to_thread(harness.pool_is_told, before)]


async def responses():
    return (await Agent(OpenAIResponsesModel(harness.MODEL, provider=provider)).run(harness.ASKED)).output


async def vote():
    return ratchet_client.vote(await agent.run(harness.VOTE_ASKED), up=True, user="ann")


async def vote_stream():
    async with agent.run_stream(harness.VOTE_ASKED) as result:
        await result.get_output()
    return ratchet_client.vote(result.response, up=False, user="ann")


async def two_turns():
    for first, second in harness.questions():
        result = await agent.run(first)
        await agent.run(second, message_history=result.all_messages())


harness.main(globals())
