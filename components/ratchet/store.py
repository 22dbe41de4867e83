"""The object store: a folder or an S3 bucket, with writes that never overwrite.

Everything durable goes through `create` (fails if the key exists) or `replace` (fails unless the key still holds
what was read). Both are atomic: a reader sees all of an object or none of it.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol, Self
from urllib.parse import urlsplit

from tenacity import retry, retry_if_exception, stop_after_attempt, wait_random_exponential

from ratchet.digest import digest_bytes
from ratchet.errors import Conflict, UserError

CONNECT_TIMEOUT_S = 5
READ_TIMEOUT_S = 30
MAX_ATTEMPTS = 5  # of one S3 call, where the server is busy, breaks off or stays silent


class Store(Protocol):
    """Bytes by key under one root. Keys are relative, with `/` between parts."""

    root: str

    def read(self, key: str) -> bytes: ...

    def exists(self, key: str) -> bool: ...

    def list(self, prefix: str, after: str = "") -> Iterator[str]:
        """Keys under the folder `prefix`, sorted; with `after`, only those that sort behind that key."""

    def create(self, key: str, data: bytes) -> None:
        """Write a new object. Raises Conflict if the key is taken, whatever it holds."""

    def replace(self, key: str, data: bytes, expected: bytes) -> None:
        """Overwrite only while the object still holds `expected`; else Conflict."""

    def put_tree(self, folder: Path, key: str) -> None:
        """Publish a folder under `key`. Files that are there already are left: names carry digests."""

    def remove(self, key: str) -> None:
        """Delete an object or a folder, if it is there. For work in progress: nothing that a manifest names."""

    def local(self, key: str) -> Path:
        """A path that holds the object or folder, downloaded if need be."""

    def delta_uri(self, key: str) -> tuple[str, dict[str, str]]:
        """Where a Delta table lives, and the storage options to open it with."""


def open_store(root: str | Path) -> Store:
    """The store at a folder or `s3://bucket/prefix`."""
    if str(root).startswith("s3://"):
        return S3Store(str(root))
    return LocalStore(Path(root))


def open_lake(root: str | Path) -> Store:
    """A store that is there already, for those who only read or mend it: a mistyped folder is no empty lake."""
    store = open_store(root)
    if isinstance(store, LocalStore) and not store.path.is_dir():
        raise UserError(
            f"there is no lake at {store.root}; is --lake right? `ratchet import FORMAT FILE --lake …` begins one"
        )
    return store


class LocalStore:
    """A folder. Atomic by writing aside and linking into place."""

    def __init__(self, root: Path) -> None:
        self.path = root.absolute()
        self.root = str(self.path)

    def read(self, key: str) -> bytes:
        try:
            return (self.path / key).read_bytes()
        except FileNotFoundError:
            raise UserError(f"{self.path / key} does not exist; is {self.path} the right lake?") from None

    def exists(self, key: str) -> bool:
        return (self.path / key).exists()

    def list(self, prefix: str, after: str = "") -> Iterator[str]:
        base = self.path / prefix
        found = (path for path in base.rglob("*") if path.is_file() and not path.name.startswith("."))
        keys = (path.relative_to(self.path).as_posix() for path in found)
        return iter(sorted(key for key in keys if key > after))

    def create(self, key: str, data: bytes) -> None:
        target = self.path / key
        aside = self._write_aside(target, data)
        try:
            os.link(aside, target)  # unlike rename, refuses to replace
        except FileExistsError:
            raise Conflict(f"{target} exists") from None
        finally:
            aside.unlink()

    def replace(self, key: str, data: bytes, expected: bytes) -> None:
        import fcntl

        target = self.path / key
        if not target.parent.is_dir():
            raise Conflict(f"{target} is gone")
        with (target.parent / f".{target.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not target.exists() or target.read_bytes() != expected:
                raise Conflict(f"{target} has changed")
            self._write_aside(target, data).replace(target)

    def put_tree(self, folder: Path, key: str) -> None:
        target = self.path / key
        if target.exists():
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=".", dir=target.parent))
        try:
            shutil.copytree(folder, aside / target.name)
            (aside / target.name).rename(target)
        except OSError:
            if not target.exists():
                raise
        finally:
            shutil.rmtree(aside, ignore_errors=True)

    def remove(self, key: str) -> None:
        target = self.path / key
        if target.is_dir():
            shutil.rmtree(target)
        else:
            target.unlink(missing_ok=True)

    def local(self, key: str) -> Path:
        return self.path / key

    def delta_uri(self, key: str) -> tuple[str, dict[str, str]]:
        return str(self.path / key), {}

    def _write_aside(self, target: Path, data: bytes) -> Path:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".", dir=target.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except BaseException:  # a full disk, mostly: leave no litter on it
            Path(name).unlink()
            raise
        return Path(name)


class S3Store:
    """A bucket and prefix on S3 or anything that honours conditional writes; refuses what does not."""

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
        place = f"{self.client.meta.endpoint_url} {self.root}"  # two servers may hold buckets of one name
        self.cache = Path(tempfile.gettempdir()) / "ratchet" / digest_bytes(place.encode())[:16]
        self._conditions_hold = False

    def __reduce__(self) -> tuple[type[Self], tuple[str]]:
        """Another process opens the store anew: connections cannot be sent."""
        return type(self), (self.root,)

    def read(self, key: str) -> bytes:
        try:
            return bytes(self._get(key)["Body"].read())
        except self.client.exceptions.NoSuchKey:
            raise UserError(f"{self.root}/{key} does not exist; is {self.root} the right lake?") from None

    def exists(self, key: str) -> bool:
        # "a-b" sorts before "a/b", so the first key that starts with "a" does not tell whether the folder "a" exists.
        return self._is_object(key) or self._first(self._full(key).rstrip("/") + "/") is not None

    def list(self, prefix: str, after: str = "") -> Iterator[str]:
        start = {"StartAfter": self._full(after)} if after else {}
        pages = self.client.get_paginator("list_objects_v2").paginate(
            Bucket=self.bucket, Prefix=self._full(prefix).rstrip("/") + "/", **start
        )
        skip = len(self.prefix) + 1 if self.prefix else 0
        return iter(sorted(found["Key"][skip:] for page in pages for found in page.get("Contents", [])))

    def create(self, key: str, data: bytes) -> None:
        self._require_conditions()
        self._put(key, data, IfNoneMatch="*")

    def replace(self, key: str, data: bytes, expected: bytes) -> None:
        self._require_conditions()
        try:
            found = self._get(key)
        except self.client.exceptions.NoSuchKey:
            raise Conflict(f"{self.root}/{key} is gone") from None
        if found["Body"].read() != expected:
            raise Conflict(f"{self.root}/{key} has changed")
        self._put(key, data, IfMatch=found["ETag"])

    def put_tree(self, folder: Path, key: str) -> None:
        for path in sorted(folder.rglob("*")):
            target = f"{key}/{path.relative_to(folder).as_posix()}"
            if path.is_file() and not self._is_object(target):
                self.client.upload_file(str(path), self.bucket, self._full(target))

    def remove(self, key: str) -> None:
        for found in self.list(key) if not self._is_object(key) else [key]:
            self.client.delete_object(Bucket=self.bucket, Key=self._full(found))
        shutil.rmtree(self.cache / key, ignore_errors=True)

    def local(self, key: str) -> Path:
        for found in self.list(key) if not self._is_object(key) else [key]:
            target = self.cache / found
            if not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                self.client.download_file(self.bucket, self._full(found), str(target))
        return self.cache / key

    def delta_uri(self, key: str) -> tuple[str, dict[str, str]]:
        options = {"aws_conditional_put": "etag"}
        if endpoint := os.environ.get("AWS_ENDPOINT_URL"):
            options |= {"aws_endpoint": endpoint, "aws_allow_http": "true"}
        return f"{self.root}/{key}", options

    def _full(self, key: str) -> str:
        return f"{self.prefix}/{key}" if self.prefix else key

    def _get(self, key: str) -> Any:
        return self.client.get_object(Bucket=self.bucket, Key=self._full(key))

    def _is_object(self, key: str) -> bool:
        return self._first(self._full(key)) == self._full(key)

    def _first(self, prefix: str) -> str | None:
        page = self.client.list_objects_v2(Bucket=self.bucket, Prefix=prefix, MaxKeys=1)
        return next((found["Key"] for found in page.get("Contents", [])), None)

    def _put(self, key: str, data: bytes, **condition: str) -> None:
        from botocore.exceptions import ClientError

        try:
            self._put_undisturbed(Bucket=self.bucket, Key=self._full(key), Body=data, **condition)
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
    def _put_undisturbed(self, **request: Any) -> None:
        """Put an object. S3 answers 409 while another write to its key is under way: nobody knows yet who wins."""
        self.client.put_object(**request)

    def _require_conditions(self) -> None:
        """Some servers accept `If-None-Match` and overwrite all the same; on those nothing here would be safe."""
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
    """S3's error code, empty where the error is not S3's."""
    return str(getattr(error, "response", {}).get("Error", {}).get("Code", ""))
