"""The matrix: which clients, which cells, and how a client is run direct to a pool and through a router to it.

A client is a script in scripts/, run by the interpreter of its own environment; its cells are the functions of that
script whose names are among `CELLS`. Two runs are the same if all that the client shows is: ids and times aside.
"""

import json
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.clients import pool
from tests.clients.scripts.harness import CELLS

from ratchet.events import Feedback, Interaction
from ratchet.router.app import create_app
from ratchet.router.settings import RouterSettings
from ratchet.store import LocalStore
from support.http_server import running
from support.router_client import SECRET, interactions, votes

ROOT = Path(__file__).parents[2]
SCRIPTS = Path(__file__).parent / "scripts"
NODE_MODULES = ROOT / "clients" / "npm" / "node_modules"
KEY = "sk-of-a-tenant-with-many-characters"
RUN_S = 300.0
VOTES = ("vote", "vote_stream")
IDS = re.compile(
    r"(chatcmpl|resp|cmpl|req|run|lc_run|msg|gen|aitxt)-?[-_][\w=-]{8,}|[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f-]{22}"
)
TIMES = ("created", "created_at", "timestamp", "completed_at", "date")


@dataclass(frozen=True, kw_only=True)
class Client:
    """A client library, as users install it."""

    name: str
    script: str
    python: str = ".venv-clients"
    """The environment that has it; empty for Node's."""
    is_core: bool = False
    """Whether CI runs it."""

    @property
    def command(self) -> list[str]:
        interpreter = str(ROOT / self.python / "bin" / "python") if self.python else "node"
        return [interpreter, str(SCRIPTS / self.script)]

    @property
    def cells(self) -> tuple[str, ...]:
        """The cells of its script, in the table's order."""
        text = (SCRIPTS / self.script).read_text()
        return tuple(name for name in CELLS if re.search(rf"^(async )?(def|function) {name}\(", text, re.MULTILINE))


CLIENTS = (
    Client(name="openai-python 3", script="openai_python.py", python=".venv", is_core=True),
    Client(name="openai-python 2", script="openai_python.py"),
    Client(name="LangChain", script="langchain_python.py"),
    Client(name="LlamaIndex", script="llama_index_python.py"),
    Client(name="instructor", script="instructor_python.py"),
    Client(name="Pydantic AI", script="pydantic_ai_python.py"),
    Client(name="Agents SDK", script="agents_python.py"),
    Client(name="LiteLLM", script="litellm_python.py"),
    Client(name="LiteLLM proxy", script="litellm_proxy.py"),
)


@dataclass(frozen=True, kw_only=True)
class Runs:
    """What one client gave on both ways, and what the lake then held."""

    direct: dict[str, Any]
    routed: dict[str, Any]
    interactions: list[Interaction] = field(default_factory=list)
    votes: list[Feedback] = field(default_factory=list)

    def faults(self, cell: str) -> Iterator[str]:
        """What is wrong with this cell; nothing if it works as it does without the router."""
        routed = self.routed[cell]
        if "failed" in routed:
            yield f"through the router: {routed['failed']}"
        elif cell in VOTES:
            yield from self._vote_faults(routed["gave"], 1 if cell == "vote" else -1)
        if cell not in VOTES:
            direct = self.direct[cell]
            if "failed" in direct:
                yield f"the matrix is wrong: direct to the pool: {direct['failed']}"
            elif "gave" in routed and without_ids(direct) != without_ids(routed):
                yield f"direct {json.dumps(without_ids(direct))}\nrouted {json.dumps(without_ids(routed))}"

    def _vote_faults(self, feedback_id: str, value: int) -> Iterator[str]:
        [stored] = [vote for vote in self.votes if vote.feedback_id == feedback_id] or [None]
        if stored is None:
            yield f"no vote {feedback_id} in the lake"
            return
        [answered] = [one for one in self.interactions if one.interaction_id == stored.interaction_id] or [None]
        if answered is None or "worth a vote" not in answered.response:
            yield f"the vote is on {answered}"
        if stored.value != value:
            yield f"the vote says {stored.value}, not {value}"


def without_ids(given: Any) -> Any:
    """The same without what differs from one request to the next."""
    if isinstance(given, dict):
        return {name: "<time>" if name in TIMES and value else without_ids(value) for name, value in given.items()}
    if isinstance(given, list):
        return [without_ids(one) for one in given]
    return IDS.sub("<id>", given) if isinstance(given, str) else given


def run(client: Client, base_url: str, pool_url: str, *cells: str, **env: str) -> dict[str, Any]:
    """Run a client's cells at this address. Raises AssertionError if the script did not come to its end."""
    variables = {
        **os.environ,
        "OPENAI_BASE_URL": f"{base_url}/v1",
        "OPENAI_API_KEY": KEY,
        "POOL_URL": pool_url,
        "PYTHONPATH": str(ROOT / "clients" / "python"),
        "NO_COLOR": "1",
        **env,
    }
    ended = subprocess.run(
        [*client.command, *cells], cwd=SCRIPTS, env=variables, capture_output=True, text=True, timeout=RUN_S
    )
    assert ended.returncode == 0, ended.stdout[-2000:] + ended.stderr[-4000:]
    return dict(json.loads(ended.stdout.splitlines()[-1]))


@contextmanager
def pool_and_router(folder: Path) -> Iterator[tuple[str, str]]:
    """Addresses of a pool and of a router before it that records into this folder."""
    with running(pool.create_app()) as pool_url:
        settings = RouterSettings(
            pool_url=pool_url, lake=str(folder), secret=SECRET, api_keys=f"app={KEY}", consent_training="granted"
        )
        with running(create_app(settings, LocalStore(folder))) as router_url:
            yield pool_url, router_url


def both(client: Client) -> Runs:
    """Run all cells of a client on both ways."""
    with TemporaryDirectory() as folder, pool_and_router(Path(folder)) as (pool_url, router_url):
        cells = client.cells
        direct = run(client, pool_url, pool_url, *[cell for cell in cells if cell not in VOTES])
        routed = run(client, router_url, pool_url, *cells)
        lake = LocalStore(Path(folder))
        return Runs(direct=direct, routed=routed, interactions=interactions(lake), votes=votes(lake))
