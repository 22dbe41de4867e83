"""Read and write the values file in Git, where a release starts and a rollback ends.

Three values are ours: the `adapter` block, `rolloutNonce` and `skipAnalysis`. A rollback writes them and never uses
`git revert`: the previous commit may not name the serving adapter. Everything else in the file stays byte for byte.
"""

import copy
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

import yaml

from ratchet.adapter_ref import KEYS, AdapterRef
from ratchet.errors import Conflict, UserError, without_credentials

PUSH_ATTEMPTS = 10
TIMEOUT_S = 60.0
AUTHOR = ("-c", "user.name=Ratchet", "-c", "user.email=ratchet@localhost")
TRAILER = "Canary-Run"


@dataclass(frozen=True)
class ReleaseValues:
    """The values that a release writes."""

    adapter: AdapterRef
    nonce: str = ""
    """The chart's `rolloutNonce`: a new one makes a new revision of the same adapter."""
    skip_analysis: bool = False
    """The chart's `skipAnalysis`: Flagger promotes without a canary."""


DecideValues = Callable[[ReleaseValues], ReleaseValues]


class GitUnavailable(UserError):
    """The repository does not answer, or refuses our push. It may be otherwise at the next pass."""


@dataclass(frozen=True)
class Commit:
    """The commit that holds the wanted values, and whether this call made it."""

    sha: str
    is_new: bool


class ValuesReader(Protocol):
    """Every way to read the values file in Git."""

    def read_adapter(self) -> AdapterRef: ...

    def look(self, run: str) -> tuple[ReleaseValues, bool]: ...


class ValuesWriter(Protocol):
    """Every way to change the values file in Git, so that all can be guarded. `ValuesFile` says what each does."""

    def name_once(self, values: ReleaseValues, subject: str, run: str) -> Commit: ...

    def write(self, decide: DecideValues, subject: str, run: str, mark: bool = False) -> Commit: ...


class Values(ValuesReader, ValuesWriter, Protocol):
    """Reads and writes of the values file in Git: `ValuesFile`, or a fake."""


class ValuesFile:
    """One values file on one branch. Keeps a clone in a temporary folder while it is open, made at the first look.

    `on_push` is called after each commit of ours; it must not raise.
    """

    def __init__(self, url: str, branch: str, path: str, on_push: Callable[[], None] | None = None) -> None:
        self.url, self.branch, self.path = url, branch, path
        self._on_push = on_push
        self._folder = Path(tempfile.mkdtemp(prefix="ratchet-git-"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def read_adapter(self) -> AdapterRef:
        """Return the adapter that the newest commit names."""
        return self.look("")[0].adapter

    def look(self, run: str) -> tuple[ReleaseValues, bool]:
        """Return our values in the newest commit, and whether `run` is in that commit's history.

        Read from two commits, a push in between would make a release that has just begun look rolled back.
        """
        self._refresh()
        return values_in(self._text(), self.path), self._in_history(run)

    def name_once(self, values: ReleaseValues, subject: str, run: str) -> Commit:
        """Make the branch hold the values, unless `run` is in its history: it was named before, or aborted."""
        return self.write(lambda now: now if self._in_history(run) else values, subject, run)

    def write(self, decide: DecideValues, subject: str, run: str, mark: bool = False) -> Commit:
        """Commit and push until the branch holds the values that `decide` returns for those it holds now.

        With `mark`, `run` is in the history afterwards even if nothing had to change. After another writer's push,
        `decide` is asked again. Raises Conflict after PUSH_ATTEMPTS such pushes, GitUnavailable while the repository
        is away or refuses, UserError where the file cannot be rewritten.
        """
        for _ in range(PUSH_ATTEMPTS):
            self._refresh()
            text = self._text()
            wanted = with_values(text, decide(values_in(text, self.path)), self.path)
            if wanted == text and (not mark or self._in_history(run)):
                return Commit(self._git("log", "-1", "--format=%H", "--", self.path), is_new=False)
            (self._folder / self.path).write_bytes(wanted.encode())
            message = f"{subject}\n\n{TRAILER}: {run}\n"
            self._git(
                *AUTHOR, "commit", "--quiet", "--no-verify", "--allow-empty", f"--message={message}", "--", self.path
            )
            if self._push():
                if self._on_push:
                    self._on_push()
                return Commit(self._git("rev-parse", "HEAD"), is_new=True)
        raise Conflict(f"{without_credentials(self.url)}: another writer pushed first {PUSH_ATTEMPTS} times")

    def _in_history(self, run: str) -> bool:
        return bool(self._git("log", "-1", "--format=%H", "--fixed-strings", f"--grep={TRAILER}: {run}"))

    def _refresh(self) -> None:
        if not (self._folder / ".git").exists():
            cloned = self._run("clone", "--quiet", "--single-branch", "--branch", self.branch, "--", self.url, ".")
            if cloned.returncode != 0:
                raise self._unavailable("clone", cloned.stderr)
        fetched = self._run("fetch", "--quiet", "origin", self.branch)
        if fetched.returncode != 0:
            raise self._unavailable("fetch", fetched.stderr)
        self._git("reset", "--quiet", "--hard", "FETCH_HEAD")

    def _push(self) -> bool:
        """Push; return False if the branch has moved meanwhile."""
        done = self._run("push", "--quiet", "--porcelain", "origin", f"HEAD:{self.branch}")
        if done.returncode == 0:
            return True
        words = done.stdout + done.stderr
        if any(sign in words for sign in ("non-fast-forward", "fetch first", "cannot lock ref")):
            return False
        raise self._unavailable("push", done.stderr)

    def _text(self) -> str:
        try:
            return (self._folder / self.path).read_bytes().decode()
        except FileNotFoundError:
            raise UserError(
                f"{without_credentials(self.url)} has no {self.path} on branch {self.branch}; set "
                "release_adapter.values_path or add it"
            ) from None

    def _git(self, *arguments: str) -> str:
        done = self._run(*arguments)
        if done.returncode != 0:
            raise self._unavailable(arguments[0], done.stderr)
        return done.stdout.strip()

    def _run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        quiet = {**os.environ, "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
        try:
            return subprocess.run(
                ["git", *arguments],
                cwd=self._folder,
                env=quiet,
                capture_output=True,
                text=True,
                timeout=TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise self._unavailable(arguments[0], f"no answer within {TIMEOUT_S:g} s") from None

    def _unavailable(self, command: str, stderr: str) -> GitUnavailable:
        why = " ".join(stderr.split()) or "no message"  # all of it: the reason is seldom in the last line
        return GitUnavailable(
            without_credentials(
                f"git {command} of {self.url} (branch {self.branch}) failed: {why}; see release_adapter.git_url"
            )
        )


def values_in(text: str, path: str) -> ReleaseValues:
    """Return our values in a values file. Raises UserError if it names no adapter."""
    adapter, plain = adapter_in(text, path), _loaded(text, path)
    return ReleaseValues(adapter, str(plain.get("rolloutNonce", "")), bool(plain.get("skipAnalysis", False)))


def with_values(text: str, wanted: ReleaseValues, path: str) -> str:
    """Return the file with these values: only those that differ change.

    Raises UserError where that would change anything else, as in a file whose adapter is an alias, or is no YAML after.
    """
    now = values_in(text, path)
    made = _with_adapter(text, wanted.adapter, path) if wanted.adapter != now.adapter else text
    for key, value, is_other in (
        ("rolloutNonce", wanted.nonce, wanted.nonce != now.nonce),
        ("skipAnalysis", wanted.skip_analysis, wanted.skip_analysis != now.skip_analysis),
    ):
        made = _with_top_level(made, key, value, path) if is_other else made
    _check_rewritten(text, made, wanted, path)
    return made


def adapter_in(text: str, path: str) -> AdapterRef:
    """Return the adapter that a values file names. Raises UserError if it names none."""
    scalars = _adapter_scalars(text, path)
    return AdapterRef(**{key: scalars[key].value for key in KEYS})


def _with_adapter(text: str, adapter: AdapterRef, path: str) -> str:
    scalars = _adapter_scalars(text, path)
    wanted = adapter.model_dump()
    for key in sorted(KEYS, key=lambda key: -scalars[key].start_mark.index):  # from the end: earlier marks stay true
        node = scalars[key]
        if node.value != wanted[key]:
            text = _replaced(text, node, json.dumps(wanted[key], ensure_ascii=False))
    return text


def _replaced(text: str, node: yaml.Node, word: str) -> str:
    start, end = node.start_mark.index, node.end_mark.index
    space = "" if start == 0 or text[start - 1].isspace() else " "  # `uri:` with nothing after it
    return text[:start] + space + word + text[end:]


def _with_top_level(text: str, key: str, value: str | bool, path: str) -> str:
    """Return the file with one key of the chart set, which the chart takes for empty or false where it is missing."""
    root = _compose(text, path)
    node, word = _members(root).get(key), json.dumps(value, ensure_ascii=False)
    if node is not None:
        return _replaced(text, node, word)
    end = root.end_mark.index if root is not None else len(text)  # before a closing `...`
    return f"{text[:end].rstrip()}\n{key}: {word}\n{text[end:]}"


def _check_rewritten(before: str, after: str, wanted: ReleaseValues, path: str) -> None:
    """Raise UserError unless the file says what is wanted, and else what it said before."""
    try:
        is_good = values_in(after, path) == wanted and _others(after, path) == _others(before, path)
    except UserError:
        is_good = False
    if not is_good:
        raise UserError(
            f"{path} cannot be rewritten without changing more than its adapter, rolloutNonce and skipAnalysis; write "
            "the adapter as a block of four plain `key: value` lines, and all three without anchors and aliases"
        )


def _others(text: str, path: str) -> dict[str, Any]:
    """Return all that a values file says besides our values."""
    plain = copy.deepcopy(_loaded(text, path))  # an alias and its anchor are one object
    plain["adapter"] = {key: value for key, value in plain["adapter"].items() if key not in KEYS}
    return {key: value for key, value in plain.items() if key not in ("rolloutNonce", "skipAnalysis")}


def _loaded(text: str, path: str) -> dict[str, Any]:
    try:
        plain = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not YAML: {error}") from None
    return plain if isinstance(plain, dict) else {}


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
