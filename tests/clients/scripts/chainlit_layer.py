"""The app of docs/clients.md (PAGE_BLOCK) in Chainlit's own HTTP interface: a thumb given, changed and taken back."""

import asyncio
import json
import os
import tempfile

import harness
import httpx

os.environ["CHAINLIT_APP_ROOT"] = tempfile.mkdtemp()  # it writes its settings there

import chainlit as cl
from chainlit.config import config
from chainlit.context import init_http_context
from chainlit.data import get_data_layer
from chainlit.server import app


async def main():
    exec(os.environ["PAGE_BLOCK"], {})
    init_http_context(thread_id="thread")
    await config.code.on_message(cl.Message(harness.VOTE_ASKED))
    other = await cl.Message("An answer of another model").send()
    await asyncio.sleep(0.1)  # Chainlit stores a message beside its sending
    [answered] = get_data_layer()._answers
    statuses = []
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://chainlit") as page:

        async def thumb(for_id, value, **fields):
            feedback = {"forId": for_id, "threadId": "thread", "value": value, **fields}
            answer = await page.put("/feedback", json={"feedback": feedback, "sessionId": "session"})
            statuses.append(answer.status_code)
            return answer.json().get("feedbackId")

        given = await thumb(answered, 1)
        await thumb(answered, 0, id=given, comment="rude")
        await thumb(other.id, 1)
        statuses.append((await page.request("DELETE", "/feedback", json={"feedbackId": given})).status_code)
    print(json.dumps({"statuses": statuses}))


asyncio.run(main())
