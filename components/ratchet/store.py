"""The object store: a folder or an S3 bucket, with writes that never overwrite.

Everything durable goes through `create` (fails if the key exists) or `replace` (optimistic concurrency: fails unless
the key still holds what was read). Both are atomic: a reader sees all of an object or none of it.
"""

import logging
import os
import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, Self
from urllib.parse import urlsplit

from tenacity import retry, retry_if_exception, stop_after_attempt, wait_random_exponential

from ratchet.digest import digest_bytes, digest_tree
from ratchet.errors import Conflict, UserError

CONNECT_TIMEOUT_S = 5
READ_TIMEOUT_S = 30
logger = logging.getLogger(__name__)
MAX_ATTEMPTS = 5  # of one S3 call, while the server is busy, drops the connection or does not answer


class PublishedTree(NamedTuple):
    """A folder in the store, named by its content."""

    uri: str
    digest: str


class Store(ABC):
    """Bytes by key under one root.

    Keys are relative, with `/` between parts. A part that is empty, `.` or `..` could lead out of the root, so every
    method raises UserError for such a key, and `list` leaves it out: on S3, whoever may write to one folder can make
    a key that climbs to another.
    """

    root: str

    @abstractmethod
    def read(self, key: str) -> bytes:
        """Return the object. Raises UserError if it does not exist."""

    def download(self, key: str, target: Path) -> None:
        """Copy the object to a new local file. On S3 it may be larger than memory."""
        target.write_bytes(self.read(key))

    @abstractmethod
    def exists(self, key: str) -> bool:
        """Return whether the key is an object, or a folder of objects."""

    @abstractmethod
    def list(self, prefix: str, after: str = "") -> Iterator[str]:
        """Return the keys under the folder `prefix`, sorted; with `after`, only those that sort after that key.

        An empty prefix is the whole store.
        """

    @abstractmethod
    def create(self, key: str, data: bytes) -> None:
        """Write a new object. Raises Conflict if the key exists, even with equal content."""

    @abstractmethod
    def replace(self, key: str, data: bytes, expected: bytes) -> None:
        """Overwrite the object while it still holds `expected`; else raise Conflict."""

    @abstractmethod
    def put_tree(self, folder: Path, key: str) -> None:
        """Copy a folder to `key`. Files that exist are not overwritten, so the key must carry a digest."""

    @abstractmethod
    def remove(self, key: str) -> None:
        """Delete an object or a folder, if it exists. Only for work in progress: a manifest must not name it."""

    @abstractmethod
    def local(self, key: str) -> Path:
        """Return a local path of the object or folder, downloaded if need be."""

    @abstractmethod
    def delta_uri(self, key: str) -> tuple[str, dict[str, str]]:
        """Return the URI of a Delta table, and the storage options to open it with."""

    def create_if_absent(self, key: str, data: bytes) -> None:
        """Write a new object unless the key exists.

        For objects named by their content or by the work that determines it: what another writer put there, or an
        earlier attempt whose answer was lost, is as good as `data`. Everything else needs `create` and its Conflict.
        """
        with suppress(Conflict):
            self.create(key, data)

    def publish_tree(self, folder: Path, prefix: str) -> PublishedTree:
        """Copy a folder to `prefix/<digest of its files>`."""
        digest = digest_tree(folder)
        uri = f"{prefix}/{digest}"
        self.put_tree(folder, uri)
        return PublishedTree(uri, digest)


def is_safe(key: str) -> bool:
    """Return whether a key names a place under its root, however it is joined to a path."""
    return "\0" not in key and not {"", ".", ".."} & set(key.split("/"))


def checked(key: str) -> str:
    """Return the key. Raises UserError for one that is not safe."""
    if not is_safe(key):
        raise UserError(f"{key!r} is no key of a store: no part of it may be empty, `.` or `..`")
    return key


def open_store(root: str | Path) -> Store:
    """Open the store at a folder or at `s3://bucket/prefix`."""
    if str(root).startswith("s3://"):
        return S3Store(str(root))
    return LocalStore(Path(root))


def open_lake(root: str | Path) -> Store:
    """Open a lake that must exist. Raises UserError for a folder that does not: it is mistyped, not an empty lake."""
    store = open_store(root)
    if isinstance(store, LocalStore) and not store.path.is_dir():
        raise UserError(
            f"there is no lake at {store.root}; is --lake right? `ratchet import FORMAT FILE --lake …` begins one"
        )
    return store


class LocalStore(Store):
    """A folder. Writes are atomic: each goes to a temporary file, which is linked into place."""

    def __init__(self, root: Path) -> None:
        self.path = root.absolute()
        self.root = str(self.path)

    def read(self, key: str) -> bytes:
        try:
            return self._path(key).read_bytes()
        except FileNotFoundError:
            raise UserError(f"{self.path / key} does not exist; is {self.path} the right lake?") from None

    def exists(self, key: str) -> bool:
        return self._path(key).exists()

    def list(self, prefix: str, after: str = "") -> Iterator[str]:
        base = self._path(prefix) if prefix else self.path
        files = (path for path in base.rglob("*") if path.is_file() and not path.name.startswith("."))
        keys = (path.relative_to(self.path).as_posix() for path in files)
        return iter(sorted(key for key in keys if key > after))

    def create(self, key: str, data: bytes) -> None:
        target = self._path(key)
        temporary = self._write_temporary(target, data)
        try:
            os.link(temporary, target)  # unlike rename, refuses to replace
        except FileExistsError:
            raise Conflict(f"{target} exists") from None
        finally:
            temporary.unlink()
        _sync(target.parent)

    def replace(self, key: str, data: bytes, expected: bytes) -> None:
        import fcntl

        target = self._path(key)
        if not target.parent.is_dir():
            raise Conflict(f"{target} is gone")
        with (target.parent / f".{target.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not target.exists() or target.read_bytes() != expected:
                raise Conflict(f"{target} has changed")
            self._write_temporary(target, data).replace(target)
            _sync(target.parent)

    def put_tree(self, folder: Path, key: str) -> None:
        target = self._path(key)
        if target.exists():
            return
        _make_folder(target.parent)
        temporary = Path(tempfile.mkdtemp(prefix=".", dir=target.parent))
        try:
            copy = shutil.copytree(folder, temporary / target.name)
            for path in (copy, *copy.rglob("*")):
                _sync(path)
            copy.rename(target)
            _sync(target.parent)
        except OSError:
            if not target.exists():
                raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def remove(self, key: str) -> None:
        target = self._path(key)
        if target.is_dir():
            shutil.rmtree(target)
        else:
            target.unlink(missing_ok=True)

    def local(self, key: str) -> Path:
        return self._path(key)

    def delta_uri(self, key: str) -> tuple[str, dict[str, str]]:
        return str(self._path(key)), {}

    def _path(self, key: str) -> Path:
        return self.path / checked(key)

    def _write_temporary(self, target: Path, data: bytes) -> Path:
        _make_folder(target.parent)
        handle, name = tempfile.mkstemp(prefix=".", dir=target.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except BaseException:  # mostly a full disk: do not leave the partial file on it
            Path(name).unlink()
            raise
        return Path(name)


def _make_folder(folder: Path) -> None:
    """Make a folder and its parents, each of them durable: a file is only as durable as the names that lead to it."""
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        _sync(folder.parent)


def _sync(path: Path) -> None:
    """Write a folder's entries, or a file, through to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class S3Store(Store):
    """A bucket and prefix on S3, or on a server with its conditional writes; other servers are refused."""

    def __init__(self, root: str) -> None:
        import boto3
        from botocore.config import Config

        parts = urlsplit(root)
        self.root = root.rstrip("/")
        self.bucket, self.prefix = parts.netloc, parts.path.strip("/")
        settings = Config(
            connect_timeout=CONNECT_TIMEOUT_S,
            read_timeout=READ_TIMEOUT_S,
            retries={"mode": "standard", "total_max_attempts": MAX_ATTEMPTS},
            max_pool_connections=32,
        )
        self.client: Any = boto3.client("s3", endpoint_url=os.environ.get("AWS_ENDPOINT_URL"), config=settings)
        location = f"{self.client.meta.endpoint_url} {self.root}"  # two servers may hold buckets of one name
        self.cache = Path(tempfile.gettempdir()) / "ratchet" / digest_bytes(location.encode())[:16]
        self._conditions_hold = self._has_refused = False

    def __reduce__(self) -> tuple[type[Self], tuple[str]]:
        """Pickle as the root alone: connections cannot be sent, so another process opens its own."""
        return type(self), (self.root,)

    def read(self, key: str) -> bytes:
        try:
            return bytes(self._get(key)["Body"].read())
        except self.client.exceptions.NoSuchKey:
            raise UserError(f"{self.root}/{key} does not exist; is {self.root} the right lake?") from None

    def download(self, key: str, target: Path) -> None:
        self.client.download_file(self.bucket, self._full(key), str(target))

    def exists(self, key: str) -> bool:
        # "a-b" sorts before "a/b", so the first key that starts with "a" does not show whether the folder "a" exists.
        return self._is_object(key) or self._first(f"{self._full(key)}/") is not None

    def list(self, prefix: str, after: str = "") -> Iterator[str]:
        start = {"StartAfter": self._full(after)} if after else {}
        folder = self._full(prefix) if prefix else self.prefix
        pages = self.client.get_paginator("list_objects_v2").paginate(
            Bucket=self.bucket, Prefix=f"{folder}/" if folder else "", **start
        )
        skip = len(self.prefix) + 1 if self.prefix else 0
        keys = sorted(entry["Key"][skip:] for page in pages for entry in page.get("Contents", []))
        refused = [key for key in keys if not is_safe(key)]
        if refused and not self._has_refused:
            logger.warning("%s: %d keys are left out, such as %r", self.root, len(refused), refused[0][:200])
            self._has_refused = True
        return iter(key for key in keys if is_safe(key))

    def create(self, key: str, data: bytes) -> None:
        self.require_conditions()
        self._put(key, data, IfNoneMatch="*")

    def replace(self, key: str, data: bytes, expected: bytes) -> None:
        self.require_conditions()
        try:
            current = self._get(key)
        except self.client.exceptions.NoSuchKey:
            raise Conflict(f"{self.root}/{key} is gone") from None
        if current["Body"].read() != expected:
            raise Conflict(f"{self.root}/{key} has changed")
        self._put(key, data, IfMatch=current["ETag"])

    def put_tree(self, folder: Path, key: str) -> None:
        for path in sorted(folder.rglob("*")):
            target = f"{key}/{path.relative_to(folder).as_posix()}"
            if path.is_file() and not self._is_object(target):
                self.client.upload_file(str(path), self.bucket, self._full(target))

    def remove(self, key: str) -> None:
        for member in self.list(key) if not self._is_object(key) else [key]:
            self.client.delete_object(Bucket=self.bucket, Key=self._full(member))
        shutil.rmtree(self.cache / checked(key), ignore_errors=True)

    def local(self, key: str) -> Path:
        for member in self.list(key) if not self._is_object(key) else [key]:
            target = self.cache / checked(member)
            if not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                self.client.download_file(self.bucket, self._full(member), str(target))
        return self.cache / key

    def delta_uri(self, key: str) -> tuple[str, dict[str, str]]:
        options = {"aws_conditional_put": "etag"}
        if endpoint := os.environ.get("AWS_ENDPOINT_URL"):
            options |= {"aws_endpoint": endpoint, "aws_allow_http": "true"}
        return f"{self.root}/{checked(key)}", options

    def _full(self, key: str) -> str:
        return f"{self.prefix}/{checked(key)}" if self.prefix else checked(key)

    def _get(self, key: str) -> Any:
        return self.client.get_object(Bucket=self.bucket, Key=self._full(key))

    def _is_object(self, key: str) -> bool:
        return self._first(self._full(key)) == self._full(key)

    def _first(self, prefix: str) -> str | None:
        page = self.client.list_objects_v2(Bucket=self.bucket, Prefix=prefix, MaxKeys=1)
        return next((entry["Key"] for entry in page.get("Contents", [])), None)

    def _put(self, key: str, data: bytes, **condition: str) -> None:
        from botocore.exceptions import ClientError

        try:
            self._put_object(Bucket=self.bucket, Key=self._full(key), Body=data, **condition)
        except ClientError as error:
            if _code(error) in ("PreconditionFailed", "412"):
                raise Conflict(f"{self.root}/{key}: {error}") from None
            raise

    @retry(
        retry=retry_if_exception(lambda error: _code(error) in ("ConditionalRequestConflict", "409")),
        wait=wait_random_exponential(0.1, max=2),
        stop=stop_after_attempt(MAX_ATTEMPTS),
        reraise=True,
    )
    def _put_object(self, **request: Any) -> None:
        """Put an object, again after a 409: S3 gives it while another write to the key is undecided."""
        self.client.put_object(**request)

    def require_conditions(self) -> None:
        """Raise UserError on a server that accepts `If-None-Match` and overwrites anyway: no write there is safe."""
        if self._conditions_hold:
            return
        probe = ".ratchet-conditional-write-probe"
        for _ in range(2):
            try:
                self._put(probe, b"", IfNoneMatch="*")
            except Conflict:
                self._conditions_hold = True
                return
        raise UserError(
            f"{self.root} ignores If-None-Match: two writers would overwrite each other. Use an S3 "
            "server with conditional writes (AWS, MinIO, moto)"
        )


def _code(error: BaseException) -> str:
    """Return S3's error code; empty for any other error."""
    return str(getattr(error, "response", {}).get("Error", {}).get("Code", ""))
