"""The cells of OpenAI's Agents SDK, over its chat completions model and, in one cell, its default of /v1/responses."""

import asyncio

import harness
import ratchet_client
from agents import (
    Agent,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Runner,
    function_tool,
    set_tracing_disabled,
)
from openai import AsyncOpenAI
from pydantic import BaseModel

set_tracing_disabled(True)


class Place(BaseModel):
    city: str
    is_capital: bool


@function_tool
def temperature(city: str) -> str:
    """The temperature in a city."""
    return "21 degrees"


def agent(**fields):
    model = OpenAIChatCompletionsModel(harness.MODEL, openai_client=AsyncOpenAI(max_retries=0))
    return Agent(name="assistant", **{"model": model, **fields})


def shown(result):
    answers = [[item.model_dump() for item in answer.output] for answer in result.raw_responses]
    return [str(result.final_output), result.to_input_list(), answers, repr(result.raw_responses[-1].usage)]


async def chat():
    return shown(await Runner.run(agent(instructions="Be short."), harness.ASKED))


async def stream():
    result = Runner.run_streamed(agent(), harness.ASKED)
    events = [event.data.model_dump() async for event in result.stream_events() if event.type == "raw_response_event"]
    return [events, str(result.final_output)]


async def tools():
    return shown(await Runner.run(agent(tools=[temperature]), harness.TOOL_ASKED))


async def schema():
    return shown(await Runner.run(agent(output_type=Place), harness.SCHEMA_ASKED))


async def image():
    parts = [{"type": "input_text", "text": harness.IMAGE_ASKED}]
    parts += [{"type": "input_image", "image_url": harness.PICTURE, "detail": "auto"}]
    return shown(await Runner.run(agent(), [{"role": "user", "content": parts}]))


async def error():
    return [await harness.raised_async(Runner.run, agent(), f"[error {status}]") for status in harness.ERRORS]


async def busy():
    return harness.without_words(await harness.raised_async(Runner.run, agent(), harness.BUSY))


async def timeout():
    hasty = agent(model_settings=ModelSettings(extra_args={"timeout": harness.TIMEOUT_S}))
    return await harness.raised_async(Runner.run, hasty, "[slow]")


async def disconnect():
    before = harness.left()
    result = Runner.run_streamed(agent(), "[long]")
    async for event in result.stream_events():
        if event.type == "raw_response_event" and event.data.type == "response.output_text.delta":
            break
    result.cancel()
    return [event.data.model_dump(), await asyncio.to_thread(harness.pool_is_told, before)]


def at_responses():
    return agent(model=OpenAIResponsesModel(harness.MODEL, openai_client=AsyncOpenAI(max_retries=0)))


async def responses():
    return shown(await Runner.run(at_responses(), harness.ASKED))


async def vote():
    return ratchet_client.vote(await Runner.run(agent(), harness.VOTE_ASKED), up=True, user="ann")


async def vote_stream():
    result = Runner.run_streamed(agent(), harness.VOTE_ASKED)
    async for _ in result.stream_events():
        pass
    return ratchet_client.vote(result, up=False, user="ann")


async def vote_response():
    return ratchet_client.vote(await Runner.run(at_responses(), harness.VOTE_ASKED), user="ann")


async def two_turns():
    for first, second in harness.questions():
        result = await Runner.run(agent(), first)
        await Runner.run(agent(), [*result.to_input_list(), harness.user(second)])


harness.main(globals())
