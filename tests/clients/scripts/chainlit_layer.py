"""Chainlit's own HTTP interface with our data layer: a thumb given, changed and taken back, on one answer."""

import asyncio
import json
import os
import sys
import tempfile
from pathlib import Path

import harness
import httpx

os.environ["CHAINLIT_APP_ROOT"] = tempfile.mkdtemp()  # it writes its settings there
sys.path.insert(0, str(Path(__file__).parents[3] / "clients" / "chainlit"))

import chainlit as cl
from chainlit.config import config
from chainlit.context import init_http_context
from chainlit.server import app
from ratchet_chainlit import RatchetDataLayer


async def ask():
    headers = {"authorization": f"Bearer {os.environ['OPENAI_API_KEY']}"}
    body = {"model": harness.MODEL, "messages": [harness.user(harness.VOTE_ASKED)]}
    async with httpx.AsyncClient() as client:
        url = f"{os.environ['OPENAI_BASE_URL']}/chat/completions"
        return (await client.post(url, headers=headers, json=body)).json()


async def main():
    cl.data_layer(RatchetDataLayer)
    assert config.code.data_layer is not None
    completion = await ask()
    init_http_context(thread_id="thread")
    said = completion["choices"][0]["message"]["content"]
    message = await cl.Message(said, metadata={"completion_id": completion["id"]}).send()
    other = await cl.Message("An answer of another model").send()
    await asyncio.sleep(0.1)  # Chainlit stores a message beside its sending
    results = []
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://chainlit") as page:

        async def thumb(for_id, value, **fields):
            feedback = {"forId": for_id, "threadId": "thread", "value": value, **fields}
            answer = await page.put("/feedback", json={"feedback": feedback, "sessionId": "session"})
            results.append(answer.status_code)
            return answer.json().get("feedbackId")

        given = await thumb(message.id, 1)
        await thumb(message.id, 0, id=given, comment="rude")
        results.append((await page.request("DELETE", "/feedback", json={"feedbackId": given})).status_code)
        await thumb(other.id, 1)
    print(json.dumps({"statuses": results}))


asyncio.run(main())
