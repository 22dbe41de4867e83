"""The router as a process: what the environment says, what it refuses to start with, what a kill leaves."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator

import httpx
import pytest

from ratchet.errors import UserError
from ratchet.router.settings import RouterSettings
from ratchet.store import LocalStore
from support.router_client import NOWHERE, SECRET, token, votes


@pytest.fixture
def process(lake: LocalStore) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start the router's own command with these RATCHET_ variables; killed at the end."""
    started: list[subprocess.Popen[str]] = []

    def process(**env: str) -> subprocess.Popen[str]:
        plain = {name: value for name, value in os.environ.items() if not name.startswith("RATCHET_")}
        own = {f"RATCHET_{name.upper()}": value for name, value in {"secret": SECRET, **env}.items()}
        command = [sys.executable, "-m", "ratchet.router.app"]
        started.append(subprocess.Popen(command, env={**plain, **own}, stderr=subprocess.PIPE, text=True))
        return started[-1]

    yield process
    for one in started:
        one.kill()
        one.communicate()


def test_acknowledged_vote_survives_sigkill(process: Callable[..., subprocess.Popen[str]], lake: LocalStore) -> None:
    router = process(pool_url=NOWHERE, lake=lake.root, port="0")
    assert router.stderr
    url = router.stderr.readline().removeprefix("router: ").strip()
    vote = {"kind": "thumb", "value": -1}
    response = httpx.post(f"{url}/v1/feedback", json=vote, headers=token(), timeout=30)
    router.send_signal(signal.SIGKILL)
    router.wait()
    assert [stored.feedback_id for stored in votes(lake)] == [response.json()["feedback_id"]]


def test_port_in_use_is_one_line_and_exit_code_2(
    process: Callable[..., subprocess.Popen[str]], lake: LocalStore
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        router = process(pool_url=NOWHERE, lake=lake.root, port=port)
        _, errors = router.communicate(timeout=60)
    assert router.returncode == 2
    assert f"127.0.0.1:{port}" in errors
    assert errors.count("\n") == 1


def test_settings_come_from_the_environment() -> None:
    env = {
        "RATCHET_POOL_URL": "http://pool",
        "RATCHET_LAKE": "s3://lake",
        "RATCHET_ADAPTER_NAME": "left",
        "RATCHET_ADAPTER_VERSION": "3",
        "RATCHET_ARM": "adapter-router",
        "RATCHET_PORT": "81",
        "RATCHET_SECRET": SECRET,
    }
    settings = RouterSettings.from_env(env)
    assert (settings.pool_model, settings.arm, settings.port) == ("left@v3", "canary", 81)
    assert RouterSettings.from_env({**env, "RATCHET_ARM": "adapter-router-primary"}).arm == "primary"
    assert RouterSettings.from_env({**env, "RATCHET_ADAPTER_NAME": "base"}).pool_model is None
    with pytest.raises(UserError, match="RATCHET_POOL_URL"):
        RouterSettings.from_env({})
    with pytest.raises(UserError, match="RATCHET_PORT = 'http' is not a number"):
        RouterSettings.from_env({**env, "RATCHET_PORT": "http"})
    with pytest.raises(UserError, match="RATCHET_FALLBACK = 'other': known are none, base"):
        RouterSettings.from_env({**env, "RATCHET_FALLBACK": "other"})


def test_router_without_credentials_does_not_start_where_others_reach_it() -> None:
    env = {"RATCHET_POOL_URL": "http://pool", "RATCHET_LAKE": "s3://lake", "RATCHET_SECRET": SECRET}
    with pytest.raises(UserError, match="RATCHET_SECRET must have 32 characters"):
        RouterSettings.from_env({**env, "RATCHET_SECRET": f"{SECRET},short"})
    with pytest.raises(UserError, match="anyone could ask, and vote, as anyone"):
        RouterSettings.from_env({**env, "RATCHET_HOST": "0.0.0.0"})
    with pytest.raises(UserError, match="RATCHET_API_KEYS cannot be read: write tenant=key"):
        RouterSettings.from_env({**env, "RATCHET_API_KEYS": "justakey"})
    key = "hidden-and-long-enough"
    settings = RouterSettings.from_env({**env, "RATCHET_HOST": "0.0.0.0", "RATCHET_API_KEYS": f"acme={key}"})
    assert SECRET not in repr(settings)
    assert key not in repr(settings)


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"SECRET": " " * 40}, "RATCHET_SECRET must have 32 characters"),
        ({"SECRET": f"{SECRET}," + " " * 40}, "RATCHET_SECRET must have 32 characters"),
        (
            {"API_KEYS": "acme=a-key-of-two-tenants,other=a-key-of-two-tenants"},
            "acme and other have the same key",
        ),
        ({"HOST": "0.0.0.0", "API_KEYS": "acme=k"}, "the key of acme has fewer than 16 characters"),
        (
            {"HOST": "0.0.0.0", "API_KEYS": "acme=" + "k" * 16, "OPERATOR_TOKEN": "o"},
            "OPERATOR_TOKEN has fewer",
        ),
    ],
)
def test_credentials_that_can_be_guessed_or_confused_are_refused(given: dict[str, str], complaint: str) -> None:
    env = {"POOL_URL": "http://pool", "LAKE": "s3://lake", "SECRET": SECRET, **given}
    with pytest.raises(UserError, match=complaint):
        RouterSettings.from_env({f"RATCHET_{name}": value for name, value in env.items()})


def test_router_imports_nothing_that_touches_a_model() -> None:
    heavy = {"torch", "transformers", "peft", "polars", "mlflow", "pyarrow", "deltalake"}
    code = f"import sys, ratchet.router.app; print(sorted({heavy!r} & set(sys.modules)))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
