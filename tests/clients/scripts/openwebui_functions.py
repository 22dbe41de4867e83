"""Open WebUI's own loader, filter pipeline, feedback routes and event dispatch, with our two functions installed."""

import asyncio
import importlib.util
import json
import os
import tempfile
from pathlib import Path

import harness
import httpx

HOME = Path(importlib.util.find_spec("open_webui").submodule_search_locations[0])
os.environ |= {
    "DATA_DIR": tempfile.mkdtemp(),
    "FRONTEND_BUILD_DIR": str(HOME / "frontend"),
    "WEBUI_SECRET_KEY": "a key of this test",
    "OPENAI_API_BASE_URL": os.environ["OPENAI_BASE_URL"],
    "ENABLE_PIP_INSTALL_FRONTMATTER_REQUIREMENTS": "false",  # the client is on the path
    "OFFLINE_MODE": "true",
}

from fastapi import FastAPI, Request  # noqa: E402
from open_webui.internal.db import Base, async_engine  # noqa: E402
from open_webui.models.functions import FunctionForm, FunctionMeta, Functions  # noqa: E402
from open_webui.routers.evaluations import router  # noqa: E402
from open_webui.utils.auth import get_verified_user  # noqa: E402
from open_webui.utils.filter import FilterContext, process_filter_functions  # noqa: E402
from open_webui.utils.plugin import load_function_module_by_id  # noqa: E402

FOLDER = Path(__file__).parents[3] / "clients" / "openwebui"
USER = "7f3a"


class Person:
    """Whoever is signed in, as far as the feedback routes look."""

    id, role, name, email = USER, "user", "Ann", "ann@example.com"


async def install(name):
    content = (FOLDER / f"{name}.py").read_text()
    _, kind, frontmatter, _ = await load_function_module_by_id(name, content=content)
    form = FunctionForm(id=name, name=frontmatter["title"], content=content, meta=FunctionMeta(manifest=frontmatter))
    await Functions.insert_new_function(USER, kind, form)
    await Functions.update_function_by_id(name, {"is_active": True, "is_global": kind == "filter"})
    return await Functions.get_function_by_id(name)


async def stream(request, answers):
    """Ask for a stream as Open WebUI does, and pass each chunk through the filter."""
    headers = {"authorization": f"Bearer {os.environ['OPENAI_API_KEY']}", "x-openwebui-user-id": USER}
    body = {"model": harness.MODEL, "messages": [harness.user(harness.VOTE_ASKED)], "stream": True}
    url, context = f"{os.environ['OPENAI_BASE_URL']}/chat/completions", FilterContext()
    metadata = {"chat_id": "chat-1", "message_id": "message-1"}
    async with httpx.AsyncClient() as client:
        lines = (await client.post(url, headers=headers, json=body)).text.splitlines()
    chunks = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    for chunk in chunks:
        passed, _ = await process_filter_functions(
            request, context, [answers], "stream", dict(chunk), {"__metadata__": metadata, "__body__": body}
        )
        assert passed == chunk
    return len(chunks)


async def main():
    async with async_engine.begin() as database:
        await database.run_sync(Base.metadata.create_all)
    app = FastAPI()
    app.include_router(router)
    app.dependency_overrides[get_verified_user] = Person
    answers, _ = await install("ratchet_answers"), await install("ratchet_votes")
    request = Request({"type": "http", "app": app, "headers": [], "method": "POST", "path": "/"})
    num_chunks, statuses = await stream(request, answers), []
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://openwebui") as page:

        async def thumb(path, rating, message="message-1", **data):
            meta = {"chat_id": "chat-1", "message_id": message, "tags": ["Science"]}
            answer = await page.post(path, json={"type": "rating", "data": {"rating": rating, **data}, "meta": meta})
            statuses.append(answer.status_code)
            await asyncio.sleep(0.5)  # its events are dispatched beside the answer
            return answer.json()["id"]

        given = await thumb("/feedback", 1)
        await thumb(f"/feedback/{given}", -1, reason="not_factually_correct", comment="The sea is not.")
        await thumb("/feedback", 1, message="of another model")
        statuses.append((await page.delete(f"/feedback/{given}")).status_code)
        await asyncio.sleep(0.5)
    print(json.dumps({"statuses": statuses, "chunks": num_chunks}))


asyncio.run(main())
