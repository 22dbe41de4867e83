"""The syncer beside the real CPU pool, over real HTTP."""

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from ratchet.adapter_ref import AdapterRef
from ratchet.config import Config
from ratchet.digest import digest_tree
from ratchet.errors import UserError
from ratchet.inference.adapter_pool import AdapterPool
from ratchet.inference.server import create_app as model_server
from ratchet.inference.syncer import Syncer, create_app, named_last
from ratchet.release.ledger import EventName, Ledger, LedgerEntry
from ratchet.store import LocalStore
from support.http_server import Serve, running

Make = Callable[[str], Syncer]


@pytest.fixture(scope="module")
def empty_pool(config: Config) -> Iterator[str]:
    with running(model_server(config)) as url:
        yield url


@pytest.fixture
def published(lake: LocalStore, adapters: dict[str, Path]) -> Callable[[str, str], AdapterRef]:
    """Put an adapter's files into the lake and name them; with another digest, name them wrongly."""

    def publish(name: str, digest: str = "") -> AdapterRef:
        found = digest or digest_tree(adapters[name])
        lake.put_tree(adapters[name], f"adapters/{found}")
        return AdapterRef(name=name, version="7", uri=f"{lake.root}/adapters/{found}", digest=found)

    return publish


def record(lake: LocalStore, event: EventName, adapter: AdapterRef, baseline: AdapterRef | None = None) -> None:
    Ledger(lake).append(lambda _: LedgerEntry(event=event, at=0, who="test", adapter=adapter, baseline=baseline))


@pytest.fixture
def syncer(lake: LocalStore, tmp_path: Path) -> Iterator[Make]:
    """A syncer of this lake beside the server at this address; what it loaded is unloaded at the end."""
    made: list[Syncer] = []

    def make(url: str) -> Syncer:
        made.append(Syncer(Ledger(lake), AdapterPool(url, tmp_path / "adapters"), max_adapters=4))
        return made[-1]

    yield make
    for one in made:
        if not one.pool.client.is_closed:
            one.pool.keep_only(set())
            one.pool.close()


def test_adapters_of_the_ledger_are_brought_checked_and_loaded(
    lake: LocalStore, empty_pool: str, published: Callable[..., AdapterRef], syncer: Make, tmp_path: Path
) -> None:
    left, right = published("left"), published("right")
    record(lake, "promoted", left, AdapterRef())
    record(lake, "requested", right, left)
    syncing = syncer(empty_pool)
    syncing.sync()
    assert syncing.is_ready
    assert {"left@v7", "right@v7"} <= syncing.pool.listed()
    assert digest_tree(tmp_path / "adapters" / left.digest) == left.digest


def test_server_that_forgot_gets_its_adapters_back_though_the_lake_is_gone(
    lake: LocalStore, empty_pool: str, published: Callable[..., AdapterRef], syncer: Make, tmp_path: Path
) -> None:
    left = published("left")
    record(lake, "promoted", left)
    syncing = syncer(empty_pool)
    syncing.sync()
    httpx.post(f"{empty_pool}/v1/unload_lora_adapter", json={"lora_name": "left@v7"}).raise_for_status()
    (lake.path / "adapters").rename(lake.path / "gone")
    syncing.sync()
    assert "left@v7" in syncing.pool.listed()


def test_adapter_that_is_not_what_its_digest_says_is_never_loaded(
    lake: LocalStore, empty_pool: str, published: Callable[..., AdapterRef], syncer: Make, tmp_path: Path
) -> None:
    left, tampered = published("left"), published("right", "0" * 64)
    record(lake, "promoted", left)
    record(lake, "requested", tampered, left)
    syncing = syncer(empty_pool)
    syncing.sync()
    assert "right@v7 will not be served" in syncing.troubles["right@v7"]
    assert syncing.pool.listed() & {"left@v7", "right@v7"} == {"left@v7"}
    assert syncing.is_ready, "a bad candidate does not take what serves out of service"
    assert [path.name for path in (tmp_path / "adapters").iterdir()] == [left.digest]


def test_pool_without_what_was_promoted_is_not_ready(
    lake: LocalStore, empty_pool: str, published: Callable[..., AdapterRef], syncer: Make, serve: Serve
) -> None:
    record(lake, "promoted", published("right", "0" * 64))
    url = serve(create_app(syncer(empty_pool), poll_s=0.05))
    response = httpx.get(f"{url}/readyz")
    while "no pass" in response.text:
        response = httpx.get(f"{url}/readyz")
    assert response.status_code == 503
    assert "right@v7 will not be served" in response.json()["error"]["message"]
    assert "ratchet_adapters_missing 1.0" in httpx.get(f"{url}/metrics").text
    assert httpx.get(f"{url}/healthz").status_code == 200


def test_server_that_is_away_is_said_and_survived(
    lake: LocalStore, published: Callable[..., AdapterRef], syncer: Make
) -> None:
    record(lake, "promoted", published("left"))
    syncing = syncer("http://127.0.0.1:9")
    syncing.sync()
    assert not syncing.is_ready
    assert "does not answer" in syncing.troubles["left@v7"]
    with pytest.raises(UserError, match="does not answer"):
        syncing.pool.listed()


def test_adapters_named_last_are_kept_and_the_base_needs_nothing(lake: LocalStore) -> None:
    one, two, three = (AdapterRef(name="a", version=str(n), uri=f"u{n}", digest=f"d{n}") for n in (1, 2, 3))
    for event, adapter, baseline in (
        ("promoted", one, AdapterRef()),
        ("promoted", two, one),
        ("requested", three, two),
        ("rolled_back", three, two),
    ):
        record(lake, event, adapter, baseline)  # type: ignore[arg-type]
    records = Ledger(lake).records()
    assert named_last(records, 2) == [three, two]
    assert named_last(records, 9) == [three, two, one]
