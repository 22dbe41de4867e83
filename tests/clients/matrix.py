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
from tests.clients.scripts.harness import CELLS, VOTE_ASKED

from ratchet.events import Feedback, Interaction
from ratchet.router.app import create_app
from ratchet.router.settings import RouterSettings
from ratchet.store import LocalStore
from support.http_server import running
from support.router_client import SECRET, interactions, votes

ROOT = Path(__file__).parents[2]
PYTHON_SCRIPTS = ROOT / "tests" / "clients" / "scripts"
NODE_SCRIPTS = ROOT / "clients" / "npm" / "matrix"  # where Node finds the packages of clients/npm
HAS_NODE = (ROOT / "clients" / "npm" / "node_modules" / "openai").is_dir()
KEY = "sk-of-a-tenant-with-many-characters"
RUN_S = 300.0
VOTES = {"vote": 1, "vote_stream": -1, "vote_response": 1}
IDS = re.compile(
    r"(chatcmpl|resp|cmpl|req|run|lc_run|msg|gen|aitxt)-?[-_][\w=-]{8,}|[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f-]{22}"
)
TIMES = ("created", "created_at", "timestamp", "completed_at", "date")


@dataclass(frozen=True, kw_only=True)
class Client:
    """A client library, as users install it."""

    name: str
    package: str
    """The library's own, of whose version the table tells."""
    script: str
    env: str = ".venv-clients"
    """The Python environment that has it; empty for Node's."""
    cells_in: str = ""
    """The script that has its cells, if that is another."""
    is_core: bool = False
    """Whether CI runs it."""

    @property
    def command(self) -> list[str]:
        """The script, as a command without its cells."""
        interpreter = str(ROOT / self.env / "bin" / "python") if self.env else "node"
        return [interpreter, str(self._folder / self.script)]

    @property
    def cells(self) -> tuple[str, ...]:
        """The cells of its script, in the table's order."""
        text = (self._folder / (self.cells_in or self.script)).read_text()
        return tuple(name for name in CELLS if re.search(rf"^(async )?(def|function) {name}\(", text, re.MULTILINE))

    @property
    def version(self) -> str:
        """The version that is pinned for the tests."""
        if not self.env:
            packages = json.loads((ROOT / "clients" / "npm" / "package.json").read_text())
            return str(packages["devDependencies"][self.package])
        pins = "dev.txt" if self.env == ".venv" else "clients.txt"
        text = (ROOT / "requirements" / pins).read_text()
        [found] = re.findall(rf"^{re.escape(self.package)}==(\S+)", text, re.MULTILINE)
        return str(found)

    @property
    def _folder(self) -> Path:
        return PYTHON_SCRIPTS if self.env else NODE_SCRIPTS


CLIENTS = (
    Client(name="openai-python 3", package="openai", script="openai_python.py", env=".venv", is_core=True),
    Client(name="openai-python 2", package="openai", script="openai_python.py"),
    Client(name="openai-node", package="openai", script="openai_node.js", env="", is_core=HAS_NODE),
    Client(name="LangChain", package="langchain", script="langchain_python.py"),
    Client(name="LlamaIndex", package="llama-index-core", script="llama_index_python.py"),
    Client(name="instructor", package="instructor", script="instructor_python.py"),
    Client(name="Pydantic AI", package="pydantic-ai-slim", script="pydantic_ai_python.py"),
    Client(name="Agents SDK", package="openai-agents", script="agents_python.py"),
    Client(name="AI SDK", package="ai", script="ai_sdk.js", env=""),
    Client(name="LiteLLM", package="litellm", script="litellm_python.py"),
    Client(name="LiteLLM proxy", package="litellm", script="litellm_proxy.py", cells_in="openai_python.py"),
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
            yield from self._vote_faults(routed["gave"], VOTES[cell])
        if cell not in VOTES:
            direct = self.direct[cell]
            if "failed" in direct:
                yield f"the matrix is wrong: direct to the pool: {direct['failed']}"
            elif "gave" in routed:
                yield from differences(direct["gave"], routed["gave"], cell)

    def _vote_faults(self, feedback_id: str, value: int) -> Iterator[str]:
        [stored] = [vote for vote in self.votes if vote.feedback_id == feedback_id] or [None]
        if stored is None:
            yield f"no vote {feedback_id} in the lake"
            return
        [answered] = [one for one in self.interactions if one.interaction_id == stored.interaction_id] or [None]
        if answered is None or answered.messages[-1].content != VOTE_ASKED:
            yield f"the vote is on {answered}"
        if stored.value != value:
            yield f"the vote says {stored.value}, not {value}"


def differences(direct: Any, routed: Any, place: str) -> Iterator[str]:
    """Each field that differs, but for ids and times that differ from one request to the next."""
    if isinstance(direct, dict) and isinstance(routed, dict):
        for name in sorted(direct.keys() | routed.keys()):
            yield from differences(direct.get(name, "(absent)"), routed.get(name, "(absent)"), f"{place}.{name}")
    elif isinstance(direct, list) and isinstance(routed, list) and len(direct) == len(routed):
        for index, (one, other) in enumerate(zip(direct, routed, strict=True)):
            yield from differences(one, other, f"{place}[{index}]")
    elif _comparable(direct, place) != _comparable(routed, place):
        yield f"{place}: direct {direct!r}, through the router {routed!r}"


def _comparable(value: Any, place: str) -> Any:
    if place.rpartition(".")[2] in TIMES:
        return type(value)
    return IDS.sub("<id>", value) if isinstance(value, str) else value


def variables(base_url: str) -> dict[str, str]:
    """The environment of a client that is pointed at this address."""
    python_path = os.pathsep.join(str(ROOT / "clients" / name) for name in ("python", "chainlit"))
    address = {"OPENAI_BASE_URL": f"{base_url}/v1", "OPENAI_API_KEY": KEY}
    return {**os.environ, **address, "PYTHONPATH": python_path, "NO_COLOR": "1"}


def run(client: Client, base_url: str, pool_url: str, *cells: str, **env: str) -> dict[str, Any]:
    """Run a client's cells at this address. Raises AssertionError if the script did not come to its end."""
    environment = {**variables(base_url), "POOL_URL": pool_url, **env}
    ended = subprocess.run(
        [*client.command, *cells], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=RUN_S
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
