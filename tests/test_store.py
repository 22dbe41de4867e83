import os
import threading
from pathlib import Path

import pytest

from ratchet.errors import Conflict, UserError
from ratchet.store import LocalStore, S3Store, Store, open_store
from support.s3_server import s3_server


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


def test_create_refuses_to_overwrite(store: Store):
    store.create("a/b.json", b"first")
    with pytest.raises(Conflict):
        store.create("a/b.json", b"second")
    assert store.read("a/b.json") == b"first"


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


def test_replace_needs_what_was_read(store: Store):
    store.create("state", b"1")
    store.replace("state", b"2", expected=b"1")
    with pytest.raises(Conflict):
        store.replace("state", b"3", expected=b"1")
    assert store.read("state") == b"2"


def test_replace_of_nothing_is_a_conflict(store: Store):
    with pytest.raises(Conflict):
        store.replace("deep/state", b"1", expected=b"")


def test_missing_object_names_the_lake(store: Store):
    with pytest.raises(UserError, match=r"absent.json does not exist"):
        store.read("absent.json")


def test_list_is_sorted_and_keeps_to_the_folder(store: Store):
    for key in ("a/2", "a/1", "a/deep/3", "ab/4"):
        store.create(key, b"")
    assert list(store.list("a")) == ["a/1", "a/2", "a/deep/3"]
    assert list(store.list("nothing")) == []
    assert list(store.list("a", after="a/1")) == ["a/2", "a/deep/3"]
    assert list(store.list("a", after="a/15")) == ["a/2", "a/deep/3"]


def test_exists_knows_objects_and_folders_but_not_name_starts(store: Store):
    store.create("a/report.json", b"")
    assert store.exists("a/report.json")
    assert store.exists("a")
    assert not store.exists("a/rep")


def test_exists_is_not_misled_by_a_longer_sibling(store: Store):
    store.create("a-1", b"")
    store.create("a/x", b"")
    assert store.exists("a")


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
