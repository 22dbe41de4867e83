"""Clients that we did not write at the router: OpenAI's own for Python, and a page of another origin in a browser."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import jwt
import openai
import pytest
from fastapi import FastAPI
from fastapi.responses import HTMLResponse

from conftest import SHARED
from ratchet.http_service import free_ports
from ratchet.router.settings import RouterSettings
from ratchet.store import LocalStore
from support import browser
from support.router_client import NOWHERE, SECRET, Start, ask, interactions, message, until, votes

SCRIPTS = SHARED / "cases" / "clients"
KEY = "sk-of-a-tenant-with-many-characters"
ASKED = [{"role": "user", "content": "Why is the sky blue?"}]


def official(router: httpx.Client, key: str = KEY) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{router.base_url}/v1", api_key=key, max_retries=0)


def test_the_model_list_holds_the_stable_name_alone(start: Start) -> None:
    client = official(start(adapter_name="left", adapter_version="1", adapter_digest="d1", public_model="our/model"))
    assert [model.id for model in client.models.list()] == ["our/model"]
    assert client.models.retrieve("our/model").owned_by == "ratchet"
    with pytest.raises(openai.NotFoundError, match="does not exist"):
        client.models.retrieve("left@v1")


def test_the_model_list_is_for_tenants(start: Start) -> None:
    router = start(pool_url=NOWHERE, api_keys=f"app={KEY}")
    with pytest.raises(openai.AuthenticationError):
        official(router, "a guess").models.list()
    assert official(router).models.retrieve("assistant").id == "assistant", "also while the pool is away"


def test_what_the_client_calls_the_request_is_the_interaction(start: Start, lake: LocalStore) -> None:
    client = official(start())
    completion = client.chat.completions.create(model="assistant", messages=ASKED, max_tokens=4)  # type: ignore[arg-type]
    [stored] = interactions(lake)
    assert completion.id == completion._request_id == stored.completion_id


def test_names_that_clients_send_by_default_are_no_error(start: Start, lake: LocalStore) -> None:
    """The official client sends None on as null; others send empty texts, numbers and whole tokens."""
    router = start()
    for fields in (
        {"user": None, "metadata": None, "stream": None, "tools": None, "seed": None},
        {"user": "", "metadata": {"conversation_id": ""}},
        {"user": "u" * 3000, "metadata": {"conversation_id": 7}},
        {"user": 12, "safety_identifier": "abc", "metadata": {"tenant": ""}},
    ):
        ask(router, **fields).raise_for_status()
    stored = interactions(lake)
    by_subject = {one.subject_id.partition("/")[0].partition(":")[0]: one for one in stored}
    assert by_subject.keys() == {"anonymous", "sha256", "abc"}
    assert by_subject["sha256"].conversation_id == "7"
    assert {one.tenant for one in stored} == {"default"}


def test_a_front_ends_headers_name_person_and_chat(start: Start, lake: LocalStore) -> None:
    router = start(api_keys=f"web={KEY}")
    named = {
        "authorization": f"Bearer {KEY}", "x-openwebui-user-id": "7f3a", "x-openwebui-chat-id": "chat-1",
    }  # fmt: skip
    for user in (None, "by the body"):
        body = {"model": "assistant", "messages": ASKED, "max_tokens": 2, "user": user}
        router.post("/v1/chat/completions", json=body, headers=named).raise_for_status()
    assert {one.subject_id for one in interactions(lake)} == {"web/7f3a", "web/by the body"}
    assert {one.conversation_id for one in interactions(lake)} == {"chat-1"}


def test_a_signed_name_goes_first_and_a_forged_one_is_refused(start: Start, lake: LocalStore) -> None:
    """The claims are those that Open WebUI 0.12 signs (open_webui/utils/headers.py)."""
    secret = "shared by the front end and the router"
    router = start(api_keys=f"web={KEY}", user_jwt_secret=secret)
    router.headers["authorization"] = f"Bearer {KEY}"
    now = int(time.time())
    claims = {"sub": "7f3a", "email": "a@example.org", "iss": "open-webui", "iat": now, "exp": now + 300}

    def ask_as(claims: dict[str, object], secret: str = secret) -> int:
        body = {"model": "assistant", "messages": ASKED, "max_tokens": 2, "user": "somebody else"}
        signed = {"x-openwebui-user-jwt": jwt.encode(claims, secret, "HS256")}
        return router.post("/v1/chat/completions", json=body, headers=signed).status_code

    assert ask_as(claims) == 200
    assert ask_as(claims, "a secret of one's own, long enough") == 401
    assert ask_as({**claims, "exp": now - 1}) == 401
    assert ask_as({name: claims[name] for name in claims if name != "sub"}) == 401
    assert [stored.subject_id for stored in interactions(lake)] == ["web/7f3a"]


@pytest.mark.parametrize(
    ("settings", "allowed"),
    [
        ({}, None),
        ({"api_keys": f"app={KEY}"}, "*"),
        ({"allowed_origins": "https://chat.example, https://other.example"}, "https://chat.example"),
        ({"api_keys": f"app={KEY}", "allowed_origins": "https://other.example"}, None),
    ],
)
def test_pages_of_other_origins_are_let_in_by_setting(
    start: Start, settings: dict[str, str], allowed: str | None
) -> None:
    router = start(pool_url=NOWHERE, **settings)
    asked = {
        "origin": "https://chat.example",
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type",
    }
    preflight = router.options("/v1/chat/completions", headers=asked)
    unnamed = {"kind": "thumb", "value": 1}
    refused = router.post("/v1/feedback", json=unnamed, headers={"origin": "https://chat.example"})
    assert preflight.headers.get("access-control-allow-origin") == allowed
    assert refused.headers.get("access-control-allow-origin") == allowed
    assert refused.status_code == 401
    assert "feedback-token" in message(refused)


PAGE = """<title>A chat on another origin</title><body>waiting</body><script>
async function talk() {
  const headers = {'content-type': 'application/json'};
  const asked = {model: 'assistant', stream: true, max_tokens: 8, messages: [{role: 'user', content: 'Hello'}]};
  const answer = await fetch('ROUTER/v1/chat/completions',
    {method: 'POST', headers: {...headers, authorization: 'Bearer KEY'}, body: JSON.stringify(asked)});
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = '';
  for (let part = await reader.read(); !part.done; part = await reader.read()) text += part.value;
  const token = answer.headers.get('x-feedback-token');
  const vote = await fetch('ROUTER/v1/feedback', {method: 'POST',
    headers: {...headers, authorization: 'Bearer ' + token}, body: JSON.stringify({kind: 'thumb', value: 1})});
  document.body.innerText = [answer.status, text.includes('[DONE]'), vote.status].join(' ');
}
talk().catch(error => document.body.innerText = 'failed: ' + error);
</script>"""


@pytest.mark.skipif(browser.CHROMIUM is None, reason="no browser: `make system` brings chromium")
def test_a_page_on_another_origin_streams_a_chat_and_votes(
    start: Start, serve: Callable[[FastAPI], str], lake: LocalStore, tmp_path: Path
) -> None:
    router = start(api_keys=f"app={KEY}")
    site = FastAPI()
    site.get("/")(lambda: HTMLResponse(PAGE.replace("ROUTER", str(router.base_url)).replace("KEY", KEY)))
    with browser.page(tmp_path) as page:
        page.show(serve(site), 800, 600)
        page.until("document.body && document.body.innerText != 'waiting' && document.body.innerText != ''")
        assert page.tell("document.body.innerText") == "200 true 200"
    [stored], [vote] = interactions(lake), votes(lake)
    assert vote.interaction_id == stored.interaction_id
    assert vote.subject_id == stored.subject_id


@contextmanager
def everything_pool() -> Iterator[str]:
    """The cases' own stub of a pool that can do everything."""
    [port] = free_ports(1)
    process = subprocess.Popen([sys.executable, str(SCRIPTS / "stub_pool.py"), str(port)])
    url = f"http://127.0.0.1:{port}"
    try:
        until(lambda: _answers(url))
        yield url
    finally:
        process.terminate()
        process.wait()


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/v1/models").is_success
    except httpx.TransportError:
        return False


@pytest.mark.parametrize(
    "script",
    [
        "tool_loop",
        "models_list",
        "cors",
        "anonymous_votes",
        "vote_by_id",
        "content_parts",
        "several_choices",
        "tool_calls_recorded",
        "conversation_split",
    ],
)
def test_scripts_of_real_clients_end_well(start: Start, lake: LocalStore, script: str) -> None:
    if not SCRIPTS.is_dir():
        pytest.skip(f"no scripts beside the checkout: {SCRIPTS} is absent")
    with everything_pool() as pool:
        router = start(pool_url=pool, api_keys=f"app={KEY}", consent_training="granted")
        env = {
            "ROUTER_URL": str(router.base_url),
            "ROUTER_KEY": KEY,
            "RATCHET_LAKE": lake.root,
            "PATH": "/usr/bin:/bin",
            "RATCHET_BIN": str(Path(sys.executable).parent / "ratchet"),
            "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
        }
        run = subprocess.run(
            [sys.executable, f"{script}.py"], cwd=SCRIPTS, env=env, capture_output=True, text=True, timeout=110
        )
    assert run.returncode == 0, run.stdout + run.stderr


def test_settings_read_the_origins() -> None:
    env = {"RATCHET_POOL_URL": NOWHERE, "RATCHET_LAKE": "lake", "RATCHET_SECRET": SECRET}
    assert RouterSettings.from_env(env).origins == []
    assert RouterSettings.from_env({**env, "RATCHET_ALLOWED_ORIGINS": "https://a, https://b,"}).origins == [
        "https://a",
        "https://b",
    ]
