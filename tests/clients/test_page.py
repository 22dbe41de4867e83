"""The blocks of code in docs/clients.md, run as they stand against a router: each must end as one vote in the lake."""

import re
import subprocess
from pathlib import Path

import pytest
from tests.clients.matrix import HAS_NODE, ROOT, pool_and_router, variables
from tests.clients.table import PAGE

from ratchet.store import LocalStore
from support.router_client import interactions, votes

BLOCK = re.compile(
    r"^### (?P<name>[^\n]+)\n(?:(?!#|```)[^\n]*\n)*```(?P<language>\w+)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL
)
BLOCKS = {found["name"]: found for found in BLOCK.finditer(PAGE.read_text())}
CORE = {"OpenAI": [str(ROOT / ".venv" / "bin" / "python"), "-"]}
NODE = ["node", "--input-type=module"]
RUN = {name for name, block in BLOCKS.items() if name != "Chainlit" and block["language"] in ("python", "js")}


def command(name: str) -> list[str]:
    if BLOCKS[name]["language"] == "js":
        return NODE
    return CORE.get(name) or [str(ROOT / ".venv-clients" / "bin" / "python"), "-"]


def is_core(name: str) -> bool:
    return name in CORE or (name == "OpenAI for Node" and HAS_NODE)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if is_core(name) else pytest.mark.clients) for name in sorted(RUN)]
)
def test_a_block_ends_as_a_vote_on_its_answer(name: str, tmp_path: Path) -> None:
    with pool_and_router(tmp_path) as (_, router_url):
        ended = subprocess.run(
            command(name),
            input=BLOCKS[name]["code"],
            cwd=ROOT / "clients" / "npm",  # where Node finds packages
            env=variables(router_url),
            capture_output=True,
            text=True,
            timeout=100,
        )
        assert ended.returncode == 0, ended.stderr[-3000:]
        [answered], [vote] = interactions(LocalStore(tmp_path)), votes(LocalStore(tmp_path))
    assert vote.interaction_id == answered.interaction_id
    assert vote.kind in ("thumb", "rating", "correction")


def test_the_page_has_a_block_for_each_client() -> None:
    assert len(RUN) == 9
    assert BLOCKS.keys() - RUN == {"React", "Chainlit"}


def test_the_block_for_react_is_compiled() -> None:
    assert BLOCKS["React"]["code"].strip() in (ROOT / "clients" / "npm" / "test" / "page.jsx").read_text()
