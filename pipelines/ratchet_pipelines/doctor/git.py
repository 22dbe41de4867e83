"""Git: the values file that a release writes, the right to push it, and that the token can change nothing else.

`git push --dry-run` asks the server for leave and sends nothing. The token goes to the release's own repository and to
those that Ratchet's Applications follow or the user names, and no credential helper of this machine stands in for it.
"""

import os
import re
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from ratchet.errors import UserError, without_credentials
from ratchet.release.reconciler.gitops import ValuesFile
from ratchet_pipelines.doctor.cluster import repositories
from ratchet_pipelines.doctor.findings import Finding, Site

TIMEOUT_S = 60.0
HARMLESS = {"README.md", "LICENSE", "CODEOWNERS", ".gitignore"}
REFUSED = re.compile(
    r"\b40[13]\b|denied|not allowed|unauthori[sz]ed|authentication failed|could not read username", re.I
)
EXPORT = "export the GIT_CONFIG_* of the Secret ratchet-git here, as docs/doctor.md does, and the token is tried"


def check_git(site: Site) -> Iterator[Finding]:
    """The values file, the push, and the reach of the token."""
    release = site.config.release_adapter
    if release.git_url is None:
        what = "release_adapter.git_url is not set: nothing will be released"
        do = "set it to the repository that holds the adapter's values, if adapters are to be released"
        yield Finding(check="git", state="unchecked", what=what, do=do)
        return
    name = without_credentials(release.git_url)
    with ValuesFile(release.git_url, release.branch, release.values_path) as values:
        adapter = values.read_adapter()
    yield Finding(check="git.read", state="ok", what=f"{name} names {adapter} in {release.values_path}")
    with TemporaryDirectory() as folder:
        _git(folder, "clone", "--quiet", "--branch", release.branch, "--", release.git_url, ".")
        yield from _others(folder, name, release.values_path)
        if _lacks_token(release.git_url):
            what = f"no token for {name} is at hand, so neither the push nor its reach was tried"
            yield Finding(check="git.push", state="unchecked", what=what, do=EXPORT)
            return
        yield from _push(folder, release.git_url, release.branch)
        yield from _reach(folder, site, release.git_url)


def _lacks_token(url: str) -> bool:
    """Whether only this machine's own log-in could push: over HTTP the token is in GIT_CONFIG_* or in the URL."""
    return url.startswith("http") and "@" not in url and not os.environ.get("GIT_CONFIG_COUNT")


def _push(folder: str, url: str, branch: str) -> Iterator[Finding]:
    done = _try(folder, "push", "--dry-run", "--quiet", url, f"HEAD:{branch}")
    if done.returncode:
        do = "give ratchet-git a token that may push to this repository; docs/argo.md, step 3, has its keys"
        what = f"no leave to push to {without_credentials(url)}: {_words(done)}"
        yield Finding(check="git.push", state="missing", what=what, do=do)
    else:
        yield Finding(check="git.push", state="ok", what=f"may push to {without_credentials(url)} ({branch})")


def _others(folder: str, name: str, values_path: str) -> Iterator[Finding]:
    files = _git(folder, "ls-files").splitlines()
    others = [file for file in files if file != values_path and Path(file).name not in HARMLESS]
    if others:
        shown = ", ".join(others[:3])
        what = f"{name} holds {len(others)} more files ({shown}, …), and the release's token can change them"
        do = "keep the values file in a repository, or a branch with rules, of its own: docs/argo.md, step 2"
        yield Finding(check="git.alone", state="missing", what=what, do=do)
    else:
        yield Finding(check="git.alone", state="ok", what=f"{name} holds the adapter and nothing else")


def _reach(folder: str, site: Site, own: str) -> Iterator[Finding]:
    named = {*site.not_writable, *repositories(site)}
    elsewhere = sorted(url for url in named if _same(url) != _same(own))
    for url in elsewhere:
        yield _elsewhere(folder, url)
    if not elsewhere:
        do = "--not-writable URL, once for each repository that Argo CD follows; --cluster reads them from there"
        what = "no other repository is known, so the token's reach was not tried"
        yield Finding(check="git.elsewhere", state="unchecked", what=what, do=do)


def _same(url: str) -> str:
    """One spelling of a repository's address: without user, `file://`, `.git` and a last slash."""
    return re.sub(r"(?<=//)[^/@]*@", "", url).removeprefix("file://").rstrip("/").removesuffix(".git").lower()


def _elsewhere(folder: str, url: str) -> Finding:
    done = _try(folder, "push", "--dry-run", "--quiet", url, f"HEAD:refs/heads/ratchet-doctor-{uuid.uuid4().hex[:8]}")
    name = without_credentials(url)
    if done.returncode == 0:
        what = f"the release's token may push to {name} as well, and so change what Argo CD applies"
        do = "make the token for the one repository: a deploy key, or a fine-grained token"
        return Finding(check="git.elsewhere", state="missing", what=what, do=do)
    if REFUSED.search(done.stderr):
        return Finding(check="git.elsewhere", state="ok", what=f"may not push to {name}")
    return Finding(
        check="git.elsewhere",
        state="unchecked",
        what=f"{name}: {_words(done)}",
        do="name it as it is reached from here",
    )


def _git(folder: str, *arguments: str) -> str:
    done = _try(folder, *arguments)
    if done.returncode:
        raise UserError(f"git {arguments[0]} failed: {_words(done)}")
    return done.stdout


def _try(folder: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    quiet = {**os.environ, "GIT_TERMINAL_PROMPT": "0", "GIT_ASKPASS": "true", "LC_ALL": "C"}
    return subprocess.run(
        ["git", "-c", "credential.helper=", *arguments],
        cwd=folder,
        env=quiet,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


def _words(done: "subprocess.CompletedProcess[str]") -> str:
    return without_credentials(" ".join(done.stderr.split())) or "no message"
