import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from ratchet.adapter_ref import AdapterRef
from ratchet.digest import digest_tree
from ratchet.errors import Conflict, UserError
from ratchet.inference.adapter_pool import AdapterPool
from ratchet.store import LocalStore, S3Store, Store, open_store
from ratchet_pipelines.rehearse.memory import MemoryStore
from support.s3_server import s3_server
from support.tiny_adapter import smallest


@pytest.fixture(scope="module")
def s3():
    with s3_server("lake", "careless"):
        yield


@pytest.fixture(params=["local", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path):
    if request.param == "local":
        yield open_store(tmp_path / "lake")
        return
    request.getfixturevalue("s3")
    found = S3Store(f"s3://lake/{request.node.name}")
    found.cache = tmp_path / "cache"
    yield found
    found.client.close()


@pytest.fixture(params=["local", "s3", "memory"])
def key_store(request: pytest.FixtureRequest, tmp_path: Path):
    """A store for what needs no path on a disk."""
    if request.param == "memory":
        yield MemoryStore()
        return
    if request.param == "local":
        yield open_store(tmp_path / "lake")
        return
    request.getfixturevalue("s3")
    opened = S3Store(f"s3://lake/{request.node.name}")
    yield opened
    opened.client.close()


def test_create_refuses_to_overwrite(key_store: Store):
    key_store.create("a/b.json", b"first")
    with pytest.raises(Conflict):
        key_store.create("a/b.json", b"second")
    assert key_store.read("a/b.json") == b"first"


def test_removed_folder_is_gone_here_and_there(store: Store):
    for key in ("work/a/1", "work/a/2", "work/ab"):
        store.create(key, b"x")
    store.local("work")
    store.remove("work/a")
    store.remove("work/nothing")
    assert list(store.list("work")) == ["work/ab"]
    assert not store.local("work/a").exists()


def test_of_many_creators_one_wins(store: Store):
    won = []

    def create(writer: int) -> None:
        try:
            store.create("race", str(writer).encode())
            won.append(writer)
        except Conflict:
            pass

    threads = [threading.Thread(target=create, args=(writer,)) for writer in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [str(writer).encode() for writer in won] == [store.read("race")]


def test_replace_needs_what_was_read(key_store: Store):
    key_store.create("state", b"1")
    key_store.replace("state", b"2", expected=b"1")
    with pytest.raises(Conflict):
        key_store.replace("state", b"3", expected=b"1")
    assert key_store.read("state") == b"2"


def test_replace_of_nothing_is_a_conflict(key_store: Store):
    with pytest.raises(Conflict):
        key_store.replace("deep/state", b"1", expected=b"")


def test_missing_object_names_the_lake(key_store: Store):
    with pytest.raises(UserError, match=r"absent.json does not exist"):
        key_store.read("absent.json")


def test_list_is_sorted_and_keeps_to_the_folder(key_store: Store):
    for key in ("a/2", "a/1", "a/deep/3", "ab/4"):
        key_store.create(key, b"")
    assert list(key_store.list("a")) == ["a/1", "a/2", "a/deep/3"]
    assert list(key_store.list("nothing")) == []
    assert list(key_store.list("a", after="a/1")) == ["a/2", "a/deep/3"]
    assert list(key_store.list("a", after="a/15")) == ["a/2", "a/deep/3"]


def test_exists_knows_objects_and_folders_but_not_name_starts(key_store: Store):
    key_store.create("a/report.json", b"")
    assert key_store.exists("a/report.json")
    assert key_store.exists("a")
    assert not key_store.exists("a/rep")


def test_exists_is_not_misled_by_a_longer_sibling(key_store: Store):
    key_store.create("a-1", b"")
    key_store.create("a/x", b"")
    assert key_store.exists("a")


def test_tree_comes_back_as_it_was_published(store: Store, tmp_path: Path):
    folder = tmp_path / "made"
    (folder / "deep").mkdir(parents=True)
    (folder / "one").write_bytes(b"1")
    (folder / "deep" / "two").write_bytes(b"2")
    store.put_tree(folder, "adapters/d1")
    found = store.local("adapters/d1")
    assert {path.relative_to(found).as_posix() for path in found.rglob("*") if path.is_file()} == {"one", "deep/two"}
    assert (store.local("adapters/d1/deep/two")).read_bytes() == b"2"


def test_tree_is_not_overwritten(store: Store, tmp_path: Path):
    folder = tmp_path / "made"
    folder.mkdir()
    (folder / "one").write_bytes(b"1")
    store.put_tree(folder, "adapters/d1")
    (folder / "one").write_bytes(b"changed")
    store.put_tree(folder, "adapters/d1")
    assert store.read("adapters/d1/one") == b"1"


def test_create_if_absent_keeps_what_is_there(key_store: Store):
    key_store.create_if_absent("named/by-content", b"first")
    key_store.create_if_absent("named/by-content", b"second")
    assert key_store.read("named/by-content") == b"first"


def test_published_tree_is_named_by_its_content(store: Store, tmp_path: Path):
    folder = tmp_path / "made"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "two").write_bytes(b"2")
    tree = store.publish_tree(folder, "adapters")
    assert tree == (f"adapters/{digest_tree(folder)}", digest_tree(folder))
    assert digest_tree(store.local(tree.uri)) == tree.digest
    assert store.publish_tree(folder, "adapters") == tree
    (folder / "deep" / "two").write_bytes(b"3")
    assert store.publish_tree(folder, "adapters").uri != tree.uri
    assert store.read(f"{tree.uri}/deep/two") == b"2"


@pytest.mark.usefixtures("s3")
def test_server_that_ignores_if_none_match_is_refused():
    store = S3Store("s3://careless")
    with pytest.raises(UserError, match="ignores If-None-Match"):
        store.create("a", b"1")
    assert not store.exists("a")
    store.client.close()


def test_failed_write_leaves_no_litter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    store = LocalStore(tmp_path)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        store.create("a/b", b"data")
    assert not any(path.is_file() for path in tmp_path.rglob("*"))


def test_empty_prefix_lists_the_whole_store(store: Store):
    store.create("a", b"1")
    store.create("folder/b", b"2")
    assert [key for key in store.list("") if not key.startswith(".")] == ["a", "folder/b"]


CLIMBING = ["..", "a/../../b", "a/./b", "a//b", "/etc/passwd", "a/..", "/", "a/", "a\0b"]
USES: dict[str, Callable[[Store, str], object]] = {
    "read": lambda store, key: store.read(key),
    "exists": lambda store, key: store.exists(key),
    "list": lambda store, key: list(store.list(key)),
    "create": lambda store, key: store.create(key, b"x"),
    "replace": lambda store, key: store.replace(key, b"x", expected=b""),
    "put_tree": lambda store, key: store.put_tree(Path(__file__).parent / "support", key),
    "remove": lambda store, key: store.remove(key),
    "local": lambda store, key: store.local(key),
    "delta_uri": lambda store, key: store.delta_uri(key),
}


@pytest.mark.parametrize("key", CLIMBING)
@pytest.mark.parametrize("use", USES)
def test_key_that_climbs_is_refused_by_every_method(store: Store, use: str, key: str):
    with pytest.raises(UserError, match="no key of a store"):
        USES[use](store, key)


@pytest.mark.usefixtures("s3")
def test_keys_that_others_planted_on_s3_lead_nowhere(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    store = S3Store("s3://lake/planted")
    store.cache = tmp_path / "deep" / "down" / "cache"
    store.create("events/good.parquet", b"good")
    for planted in ("events/../../../../climbed", "events/../sibling", "events/a//b", "events/./dot", "events/"):
        store.client.put_object(Bucket="lake", Key=f"planted/{planted}", Body=b"bad")
    assert list(store.list("events")) == ["events/good.parquet"]
    assert list(store.list("events")) == ["events/good.parquet"]
    folder = store.local("events")
    assert [path.name for path in folder.iterdir()] == ["good.parquet"]
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == {"good.parquet"}
    assert caplog.text.count("5 keys are left out") == 1, "said, and said once"
    store.remove("events")
    store.client.close()


@pytest.mark.usefixtures("s3")
def test_syncer_writes_no_file_of_an_adapter_outside_its_folder(tmp_path: Path):
    adapter = smallest(tmp_path / "made")
    store = S3Store("s3://lake/hostile")
    store.cache = tmp_path / "cache"
    uri, digest = store.publish_tree(adapter, "adapters")
    store.client.put_object(Bucket="lake", Key=f"hostile/{uri}/../../../climbed", Body=b"bad")
    pool = AdapterPool("http://127.0.0.1:9", tmp_path / "pods" / "folder")
    with pytest.raises(UserError, match="does not answer"):  # which is after its files were copied and verified
        pool.ensure(AdapterRef(name="a", version="1", uri=f"s3://lake/hostile/{uri}", digest=digest))
    assert [path.name for path in (tmp_path / "pods" / "folder" / digest).iterdir()] == [
        path.name for path in adapter.iterdir()
    ]
    assert not list(tmp_path.rglob("climbed"))
    pool.close()
    store.client.close()


def test_whatever_leads_to_a_new_file_is_on_the_disk_before_it_is_acknowledged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    synced: list[Path] = []
    sync = os.fsync

    def watched(descriptor: int) -> None:
        sync(descriptor)
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink())

    monkeypatch.setattr(os, "fsync", watched)
    store = LocalStore(tmp_path)
    store.create("events/feedback/dt=1/file", b"data")
    folders = [tmp_path / place for place in ("", "events", "events/feedback", "events/feedback/dt=1")]
    assert set(folders) <= set(synced)
    assert synced[-1] == folders[-1], "the name of the file comes last"
    synced.clear()
    store.replace("events/feedback/dt=1/file", b"more", expected=b"data")
    assert synced[-1] == folders[-1]
    synced.clear()
    made = tmp_path / "made"
    (made / "inner").mkdir(parents=True)
    (made / "inner" / "weights").write_bytes(b"weights")
    store.put_tree(made, "adapters/a")
    assert {"a", "inner", "weights"} <= {path.name for path in synced}
    assert synced[-1] == tmp_path / "adapters"
