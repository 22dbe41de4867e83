"""The syncer beside the real CPU pool, over real HTTP."""

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.responses import Response
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from ratchet.adapter_files import WEIGHTS
from ratchet.adapter_ref import AdapterRef
from ratchet.config import Config
from ratchet.digest import digest_tree
from ratchet.errors import UserError
from ratchet.inference.adapter_pool import FIRST_WAIT_S, AdapterPool, PoolAway
from ratchet.inference.server import create_app as model_server
from ratchet.inference.syncer import Syncer, champion, create_app, wanted_adapters
from ratchet.release.ledger import EventName, Ledger, LedgerEntry, LedgerRecord
from ratchet.store import LocalStore
from support.http_server import Serve, running

Make = Callable[[str], Syncer]
Publish = Callable[..., AdapterRef]


@pytest.fixture(scope="module")
def empty_pool(config: Config) -> Iterator[str]:
    with running(model_server(config)) as url:
        yield url


@pytest.fixture
def published(lake: LocalStore, adapters: dict[str, Path]) -> Publish:
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
            with suppress(PoolAway):
                one.pool.keep_only(set())
            one.pool.close()


def test_adapters_of_the_ledger_are_brought_checked_and_loaded(
    lake: LocalStore, empty_pool: str, published: Publish, syncer: Make, tmp_path: Path
) -> None:
    left, right = published("left"), published("right")
    record(lake, "promoted", left, AdapterRef())
    record(lake, "requested", right, left)
    syncing = syncer(empty_pool)
    syncing.sync()
    assert syncing.is_ready
    assert {"left@v7", "right@v7"} == set(syncing.pool.loaded())
    assert digest_tree(tmp_path / "adapters" / left.digest) == left.digest


def test_server_that_forgot_gets_its_adapters_back_though_the_lake_is_gone(
    lake: LocalStore, empty_pool: str, published: Publish, syncer: Make, tmp_path: Path
) -> None:
    left = published("left")
    record(lake, "promoted", left)
    syncing = syncer(empty_pool)
    syncing.sync()
    httpx.post(f"{empty_pool}/v1/unload_lora_adapter", json={"lora_name": "left@v7"}).raise_for_status()
    (lake.path / "adapters").rename(lake.path / "gone")
    syncing.sync()
    assert "left@v7" in syncing.pool.loaded()


def test_adapter_that_is_not_what_its_digest_says_is_never_loaded(
    lake: LocalStore, empty_pool: str, published: Publish, syncer: Make, tmp_path: Path
) -> None:
    left, tampered = published("left"), published("right", "0" * 64)
    record(lake, "promoted", left)
    record(lake, "requested", tampered, left)
    syncing = syncer(empty_pool)
    syncing.sync()
    assert "right@v7 will not be served" in syncing.troubles["right@v7"]
    assert set(syncing.pool.loaded()) == {"left@v7"}
    assert syncing.is_ready, "a bad candidate does not take what serves out of service"
    assert [path.name for path in (tmp_path / "adapters").iterdir()] == [left.digest]


def test_pool_without_what_was_promoted_is_not_ready(
    lake: LocalStore, empty_pool: str, published: Publish, syncer: Make, serve: Serve
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


def test_server_that_is_away_is_said_and_survived(lake: LocalStore, published: Publish, syncer: Make) -> None:
    record(lake, "promoted", published("left"))
    syncing = syncer("http://127.0.0.1:9")
    syncing.sync()
    assert not syncing.is_ready
    assert "does not answer" in syncing.troubles["left@v7"]
    with pytest.raises(UserError, match="does not answer"):
        syncing.pool.loaded()


def test_server_that_forgot_gets_the_champion_back_though_the_ledger_is_gone(
    lake: LocalStore,
    empty_pool: str,
    published: Publish,
    syncer: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    record(lake, "promoted", published("left"))
    syncing = syncer(empty_pool)
    syncing.sync()
    unload(empty_pool, "left@v7")
    monkeypatch.setattr(syncing.ledger.store, "list", broken)
    with pytest.raises(OSError, match="the lake is away"):
        syncing.sync()
    assert "left@v7" in syncing.pool.loaded()
    assert syncing.is_ready
    later = Syncer(syncing.ledger, syncing.pool, max_adapters=4)
    with pytest.raises(OSError, match="the lake is away"):
        later.sync()
    assert "left@v7" in syncing.pool.loaded(), "who has read no ledger unloads nothing"
    assert not later.is_ready


def broken(*_: object) -> None:
    raise OSError("the lake is away")


def unload(url: str, name: str) -> None:
    httpx.post(f"{url}/v1/unload_lora_adapter", json={"lora_name": name}).raise_for_status()


def test_what_is_no_longer_wanted_is_unloaded_and_its_files_removed_by_another_syncer_too(
    lake: LocalStore, empty_pool: str, published: Publish, syncer: Make, tmp_path: Path
) -> None:
    left, right = published("left"), published("right")
    record(lake, "promoted", left)
    record(lake, "requested", right, left)
    syncer(empty_pool).sync()
    (tmp_path / "adapters" / ".half-copied").mkdir()
    (tmp_path / "adapters" / "lost+found").mkdir()
    record(lake, "rolled_back", right, left)
    restarted = syncer(empty_pool)
    restarted.sync()
    assert set(restarted.pool.loaded()) == {"left@v7"}
    assert {path.name for path in (tmp_path / "adapters").iterdir()} == {left.digest, "lost+found"}


def test_adapters_that_no_syncer_loaded_are_left_alone(
    lake: LocalStore, empty_pool: str, published: Publish, syncer: Make, adapters: dict[str, Path]
) -> None:
    record(lake, "promoted", published("left"))
    load = {"lora_name": "by-hand", "lora_path": str(adapters["right"])}
    httpx.post(f"{empty_pool}/v1/load_lora_adapter", json=load).raise_for_status()
    syncing = syncer(empty_pool)
    syncing.sync()
    assert set(syncing.pool.loaded()) == {"left@v7", "by-hand"}
    unload(empty_pool, "by-hand")


def test_other_weights_under_the_name_are_replaced(
    lake: LocalStore,
    empty_pool: str,
    published: Publish,
    syncer: Make,
    adapters: dict[str, Path],
    tmp_path: Path,
) -> None:
    left = published("left")
    load = {"lora_name": "left@v7", "lora_path": str(adapters["right"])}
    httpx.post(f"{empty_pool}/v1/load_lora_adapter", json=load).raise_for_status()
    record(lake, "promoted", left)
    syncing = syncer(empty_pool)
    syncing.sync()
    assert syncing.pool.loaded() == {"left@v7": tmp_path / "adapters" / left.digest}


def test_refused_adapter_is_not_posted_at_every_pass(
    lake: LocalStore, published: Publish, syncer: Make, serve: Serve
) -> None:
    record(lake, "promoted", published("left"))
    record(lake, "requested", published("right"))
    pool, posts = refusing_pool()
    syncing = syncer(serve(pool))
    for _ in range(5):
        syncing.sync()
        assert "right@v7: 500 no" in syncing.troubles["right@v7"]
    assert posts == ["left@v7", "right@v7"]
    refusal = next(iter(syncing.pool._refused.values()))
    assert (refusal.wait_s, syncing.is_ready) == (FIRST_WAIT_S, True)


def refusing_pool() -> tuple[FastAPI, list[str]]:
    """A pool that takes any adapter but `right@v7`, and what it was asked to load."""
    app, posts, cards = FastAPI(), [], {"base": {"id": "base", "root": "base", "parent": None}}

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"data": list(cards.values())}

    @app.post("/v1/load_lora_adapter")
    async def load(body: dict[str, str]) -> Response:
        posts.append(body["lora_name"])
        if body["lora_name"] == "right@v7":
            return Response("no", 500)
        cards[body["lora_name"]] = {"id": body["lora_name"], "root": body["lora_path"], "parent": "base"}
        return Response("Success")

    @app.post("/v1/unload_lora_adapter")
    async def unload(body: dict[str, str]) -> Response:
        del cards[body["lora_name"]]
        return Response("Success")

    return app, posts


def test_metrics_are_true_while_the_server_is_dead(
    lake: LocalStore, published: Publish, syncer: Make, config: Config, serve: Serve
) -> None:
    record(lake, "promoted", published("left"))
    with running(model_server(config)) as url:
        syncing = syncer(url)
        beside = serve(create_app(syncing, poll_s=0.05))
        wait_for(lambda: metrics(beside) == {"loaded": 1, "missing": 0})
    wait_for(lambda: metrics(beside) == {"loaded": 0, "missing": 1})
    assert httpx.get(f"{beside}/readyz").status_code == 503


def metrics(url: str) -> dict[str, float]:
    lines = httpx.get(f"{url}/metrics").text.splitlines()
    return {
        line.split()[0].removeprefix("ratchet_adapters_"): float(line.split()[1])
        for line in lines
        if line.startswith("ratchet_adapters_")
    }


def wait_for(claim: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not claim():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("digest", ["../../outside", "/etc", "A" * 64, "0" * 63, "base/..", "0" * 64 + "/.."])
def test_digest_that_is_none_builds_no_path(
    lake: LocalStore, empty_pool: str, published: Publish, syncer: Make, tmp_path: Path, digest: str
) -> None:
    named = published("left").model_copy(update={"digest": digest})
    record(lake, "requested", named)
    syncing = syncer(empty_pool)
    before = sorted(tmp_path.rglob("*"))
    syncing.sync()
    assert "no SHA-256" in syncing.troubles["left@v7"]
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("member", ["../escaped", "a/../../escaped", "./x", "a//x", "/escaped"])
def test_keys_that_lead_out_of_the_adapters_folder_write_nothing(
    lake: LocalStore, published: Publish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, member: str
) -> None:
    """S3 takes any key; tests/test_store.py has the server."""
    adapter = published("left")
    found = f"adapters/{adapter.digest}/{member}"
    monkeypatch.setattr(LocalStore, "list", lambda *_: iter([found]))
    monkeypatch.setattr(LocalStore, "download", lambda self, key, target: target.write_bytes(b"hostile"))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match="leads out of"):
        AdapterPool("http://127.0.0.1:9", tmp_path / "adapters").ensure(adapter)
    assert sorted(path for path in tmp_path.rglob("*") if path != tmp_path / "adapters") == before


def test_hostile_adapter_of_the_right_digest_is_never_loaded(
    lake: LocalStore,
    empty_pool: str,
    published: Publish,
    syncer: Make,
    adapters: dict[str, Path],
    tmp_path: Path,
) -> None:
    hostile = tmp_path / "hostile"
    shutil.copytree(adapters["right"], hostile)
    tensors = load_file(hostile / WEIGHTS)
    tensors[min(tensors)][0, 0] = float("nan")
    save_file(tensors, hostile / WEIGHTS)
    digest = digest_tree(hostile)
    lake.put_tree(hostile, f"adapters/{digest}")
    named = AdapterRef(name="right", version="7", uri=f"{lake.root}/adapters/{digest}", digest=digest)
    record(lake, "promoted", published("left"))
    record(lake, "requested", named)
    syncing = syncer(empty_pool)
    syncing.sync()
    assert "NaN" in syncing.troubles["right@v7"]
    assert (set(syncing.pool.loaded()), syncing.is_ready) == ({"left@v7"}, True)


ONE, TWO, THREE, FOUR, FIVE, SIX = (AdapterRef(name="a", version=str(n), uri=f"u{n}", digest=f"d{n}") for n in range(6))


def ledger(lake: LocalStore, *records: tuple[EventName, AdapterRef, AdapterRef | None]) -> list[LedgerRecord]:
    for event, adapter, baseline in records:
        record(lake, event, adapter, baseline)
    return Ledger(lake).records()


def test_refused_adapters_never_push_the_champion_out(lake: LocalStore) -> None:
    served = ledger(lake, ("promoted", ONE, AdapterRef()), *(("refused", a, None) for a in (TWO, THREE, FOUR, FIVE)))
    assert wanted_adapters(served, 4) == [ONE]


def test_champion_open_request_and_its_baseline_come_first(lake: LocalStore) -> None:
    served = ledger(
        lake,
        ("promoted", ONE, AdapterRef()),
        *((event, adapter, ONE) for adapter in (TWO, THREE, FOUR) for event in ("requested", "rolled_back")),
        ("requested", FIVE, ONE),
        ("refused", SIX, None),
    )
    assert wanted_adapters(served, 2) == [ONE, FIVE]
    assert wanted_adapters(served, 9) == [ONE, FIVE]


def test_what_a_rollback_may_return_to_stays_as_long_as_there_is_room(lake: LocalStore) -> None:
    served = ledger(lake, *(("promoted", adapter, None) for adapter in (ONE, TWO, THREE)), ("requested", FOUR, THREE))
    assert wanted_adapters(served, 3) == [THREE, FOUR, TWO]


@pytest.mark.parametrize(
    ("records", "serves"),
    [
        ([], None),
        ([("refused", TWO, None)], None),
        ([("requested", TWO, ONE)], ONE),
        ([("requested", TWO, ONE), ("rolled_back", TWO, ONE)], ONE),
        ([("requested", TWO, ONE), ("promoted", TWO, ONE)], TWO),
        ([("promoted", TWO, ONE), ("requested", ONE, TWO), ("restored", ONE, TWO)], ONE),
        ([("requested", ONE, AdapterRef()), ("abort_requested", ONE, None)], AdapterRef()),
    ],
)
def test_champion_is_what_serves_by_the_ledger(
    lake: LocalStore, records: list[tuple[EventName, AdapterRef, AdapterRef | None]], serves: AdapterRef | None
) -> None:
    assert champion(ledger(lake, *records)) == serves


events = st.lists(
    st.tuples(
        st.sampled_from(["requested", "abort_requested", "promoted", "restored", "rolled_back", "refused"]),
        st.sampled_from([ONE, TWO, THREE, FOUR]),
        st.sampled_from([None, AdapterRef(), ONE, TWO, THREE, FOUR]),
    ),
    max_size=12,
)


@given(events=events, room=st.integers(1, 4))
def test_the_champion_has_a_place_whatever_the_ledger_says_of_others(events: Any, room: int) -> None:
    records = [
        LedgerRecord(seq=seq, event=event, at=0, who="t", adapter=adapter, baseline=baseline)
        for seq, (event, adapter, baseline) in enumerate(events, 1)
    ]
    wanted, serves = wanted_adapters(records, room), champion(records)
    assert len(wanted) <= room
    assert len(set(map(str, wanted))) == len(wanted)
    if serves and not serves.is_base:
        assert wanted[0] == serves
