"""Read and write the values file in Git, where a release starts and a rollback ends: its `adapter` block.

A rollback writes the four keys and never uses `git revert`: the previous commit may not name the serving adapter.
Everything else in the file stays byte for byte.
"""

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

import yaml

from ratchet.adapter_ref import KEYS, AdapterRef
from ratchet.errors import Conflict, UserError

PUSH_ATTEMPTS = 10
TIMEOUT_S = 60
AUTHOR = ("-c", "user.name=Ratchet", "-c", "user.email=ratchet@localhost")
TRAILER = "Canary-Run"
DecideAdapter = Callable[[AdapterRef], AdapterRef | None]


class GitUnavailable(UserError):
    """The repository answered before and does not now. The next pass tries again."""


@dataclass(frozen=True)
class Commit:
    """The commit that holds the wanted values, and whether this call made it."""

    sha: str
    is_new: bool


class ValuesReader(Protocol):
    """Every way to read the values file in Git."""

    def read_adapter(self) -> AdapterRef: ...

    def look(self, run: str) -> tuple[AdapterRef, bool]: ...


class ValuesWriter(Protocol):
    """Every way to change the values file in Git, so that all can be guarded. `ValuesFile` says what each does."""

    def name_once(self, adapter: AdapterRef, subject: str, run: str) -> Commit: ...

    def write_adapter(
        self, decide: DecideAdapter, subject: str, run: str, skip_analysis: bool | None = None, mark: bool = False
    ) -> Commit: ...


class Values(ValuesReader, ValuesWriter, Protocol):
    """Reads and writes of the values file in Git: `ValuesFile`, or a fake."""


class ValuesFile:
    """One values file on one branch. Keeps a clone in a temporary folder while it is open."""

    def __init__(self, url: str, branch: str, path: str) -> None:
        self.url, self.branch, self.path = url, branch, path
        self._folder = Path(tempfile.mkdtemp(prefix="ratchet-git-"))
        try:
            self._git("clone", "--quiet", "--single-branch", "--branch", branch, "--", url, ".")
        except UserError:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def read_adapter(self) -> AdapterRef:
        """Return the adapter that the newest commit names."""
        return self.look("")[0]

    def look(self, run: str) -> tuple[AdapterRef, bool]:
        """Return the adapter that the newest commit names, and whether `run` is in that commit's history.

        Read from two commits, a push in between would make a release that has just begun look rolled back.
        """
        self._refresh()
        return adapter_in(self._text(), self.path), self._in_history(run)

    def name_once(self, adapter: AdapterRef, subject: str, run: str) -> Commit:
        """Make the branch name the adapter, unless `run` is in its history: it was named before, or aborted."""
        return self.write_adapter(lambda named: None if self._in_history(run) else adapter, subject, run)

    def write_adapter(
        self,
        decide: DecideAdapter,
        subject: str,
        run: str,
        skip_analysis: bool | None = None,
        mark: bool = False,
    ) -> Commit:
        """Commit and push until the branch names the adapter that `decide` returns for the one it names now.

        `decide` returns None to leave the adapter. With `skip_analysis`, the file also says whether Flagger promotes
        without a canary. With `mark`, `run` is in the history afterwards even if nothing had to change. After
        another writer's push, `decide` is asked again. Raises Conflict after PUSH_ATTEMPTS such pushes.
        """
        for _ in range(PUSH_ATTEMPTS):
            self._refresh()
            text = self._text()
            wanted = next_values(text, self.path, decide, skip_analysis)
            if wanted == text and (not mark or self._in_history(run)):
                return Commit(self._git("log", "-1", "--format=%H", "--", self.path), is_new=False)
            (self._folder / self.path).write_bytes(wanted.encode())
            message = f"{subject}\n\n{TRAILER}: {run}\n"
            self._git(
                *AUTHOR, "commit", "--quiet", "--no-verify", "--allow-empty", f"--message={message}", "--", self.path
            )
            if self._push():
                return Commit(self._git("rev-parse", "HEAD"), is_new=True)
        raise Conflict(f"{self.url} {self.branch}: another writer pushed first {PUSH_ATTEMPTS} times")

    def _in_history(self, run: str) -> bool:
        return bool(self._git("log", "-1", "--format=%H", "--fixed-strings", f"--grep={TRAILER}: {run}"))

    def _refresh(self) -> None:
        fetched = self._run("fetch", "--quiet", "origin", self.branch)
        if fetched.returncode != 0:
            raise GitUnavailable(str(self._error("fetch", fetched.stderr)))
        self._git("reset", "--quiet", "--hard", "FETCH_HEAD")

    def _push(self) -> bool:
        """Push; return False if the branch has moved meanwhile."""
        done = self._run("push", "--quiet", "--porcelain", "origin", f"HEAD:{self.branch}")
        if done.returncode == 0:
            return True
        words = done.stdout + done.stderr
        if any(sign in words for sign in ("non-fast-forward", "fetch first", "cannot lock ref")):
            return False
        raise self._error("push", done.stderr)

    def _text(self) -> str:
        try:
            return (self._folder / self.path).read_bytes().decode()
        except FileNotFoundError:
            raise UserError(
                f"{self.url} has no {self.path} on branch {self.branch}; set release_adapter.values_path or add it"
            ) from None

    def _git(self, *arguments: str) -> str:
        done = self._run(*arguments)
        if done.returncode != 0:
            raise self._error(arguments[0], done.stderr)
        return done.stdout.strip()

    def _run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        quiet = {**os.environ, "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
        return subprocess.run(
            ["git", *arguments],
            cwd=self._folder,
            env=quiet,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )

    def _error(self, command: str, stderr: str) -> UserError:
        last = stderr.strip().splitlines()[-1:] or ["no message"]
        return UserError(
            f"git {command} of {self.url} (branch {self.branch}) failed: {last[0]}; see release_adapter.git_url"
        )


def next_values(text: str, path: str, decide: DecideAdapter, skip_analysis: bool | None) -> str:
    """Return the values file after one write: naming the adapter that `decide` returns, with `skipAnalysis` if given.

    Raises UserError where the file has no adapter block that can be rewritten.
    """
    wanted = with_adapter(text, decide(adapter_in(text, path)), path)
    return wanted if skip_analysis is None else with_skip_analysis(wanted, skip_analysis, path)


def adapter_in(text: str, path: str) -> AdapterRef:
    """Return the adapter that a values file names. Raises UserError if it names none."""
    scalars = _adapter_scalars(text, path)
    return AdapterRef(**{key: scalars[key].value for key in KEYS})


def with_adapter(text: str, adapter: AdapterRef | None, path: str) -> str:
    """Return the file naming `adapter`: only values that differ change; with None, nothing does."""
    if adapter is None:
        return text
    scalars = _adapter_scalars(text, path)
    wanted = adapter.model_dump()
    for key in sorted(KEYS, key=lambda key: -scalars[key].start_mark.index):  # from the end: earlier marks stay true
        node = scalars[key]
        if node.value != wanted[key]:
            start, end = node.start_mark.index, node.end_mark.index
            space = "" if text[start - 1 : start].isspace() else " "  # `uri:` with nothing after it
            text = text[:start] + space + json.dumps(wanted[key], ensure_ascii=False) + text[end:]
    if adapter_in(text, path) != adapter:
        raise UserError(f"{path}: the adapter block cannot be rewritten; write it as four plain `key: value` lines")
    return text


def with_skip_analysis(text: str, wanted: bool, path: str) -> str:
    """Return the file with the chart's `skipAnalysis` set; the chart takes a missing key for false."""
    node = _members(_compose(text, path)).get("skipAnalysis")
    word = json.dumps(wanted)
    if node is not None:
        return text[: node.start_mark.index] + word + text[node.end_mark.index :]
    return f"{text.rstrip()}\nskipAnalysis: {word}\n" if wanted else text


def _adapter_scalars(text: str, path: str) -> dict[str, yaml.ScalarNode]:
    block = _members(_compose(text, path)).get("adapter")
    scalars = {key: node for key, node in _members(block).items() if isinstance(node, yaml.ScalarNode)}
    if missing := [key for key in KEYS if key not in scalars]:
        raise UserError(f"{path} lacks {', '.join(f'adapter.{key}' for key in missing)}; see the chart's values.yaml")
    return scalars


def _compose(text: str, path: str) -> yaml.Node | None:
    try:
        return yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not YAML: {error}") from None


def _members(node: yaml.Node | None) -> dict[str, yaml.Node]:
    return {key.value: value for key, value in node.value} if isinstance(node, yaml.MappingNode) else {}
