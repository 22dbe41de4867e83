"""The values file in a real repository: four keys change, nothing else does, and other writers are respected."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ratchet.adapter_ref import AdapterRef
from ratchet.errors import UserError
from ratchet.release.reconciler import gitops
from ratchet.release.reconciler.gitops import (
    DecideValues,
    GitUnavailable,
    ReleaseValues,
    ValuesFile,
    adapter_in,
    with_values,
)
from ratchet_pipelines.rehearse.memory import MemoryGit
from support.release_edges import NEW, OLD, VALUES, git

PATH = "env/values.yaml"


@pytest.fixture
def values(repository: Path):
    with ValuesFile(str(repository), "main", PATH) as opened:
        yield opened


def commits(repository: Path) -> list[str]:
    return git("log", "--format=%s", "main", cwd=repository).splitlines()


def test_only_the_four_values_change() -> None:
    expected = (
        VALUES.replace("name: base ", 'name: "adapter" ')
        .replace('version: "0"', 'version: "2"')
        .replace('uri: ""', f'uri: "{NEW.uri}"')
        .replace("  digest: base", f'  digest: "{NEW.digest}"')
    )
    assert with_values(VALUES, ReleaseValues(NEW), PATH) == expected


@pytest.mark.parametrize(
    "text",
    [
        'adapter: {name: base, version: "0", uri: "", digest: base}\n',
        "adapter:\r\n  digest: base\r\n  uri:\r\n  version: '0'\r\n  name: base # ü\r\nlast: 1",
        "---\nother:\n  adapter: {name: x}\nadapter:\n  name: base\n  version: 0\n  uri:\n  digest: base",
    ],
)
def test_any_plain_yaml_can_be_rewritten_and_back(text: str) -> None:
    written = with_values(text, ReleaseValues(NEW), PATH)
    assert adapter_in(written, PATH) == NEW
    assert adapter_in(with_values(written, ReleaseValues(OLD), PATH), PATH) == OLD
    assert ("# ü" in text) == ("# ü" in written)
    assert text.count("\r\n") == written.count("\r\n")


def test_a_commit_carries_its_run_and_is_made_once(values: ValuesFile, repository: Path) -> None:
    first = values.write(naming(NEW), "Release adapter", "c/b/1")
    again = values.write(naming(NEW), "Release adapter", "c/b/1")
    assert (first.is_new, again.is_new, first.sha == again.sha) == (True, False, True)
    assert commits(repository) == ["Release adapter", "Serve the base model"]
    assert values.look("c/b/1") == (ReleaseValues(NEW), True)
    assert values.look("c/b/2") == (ReleaseValues(NEW), False)
    assert "Canary-Run: c/b/1" in git("log", "-1", "--format=%(trailers)", "main", cwd=repository)


def test_what_was_named_and_put_back_is_not_named_again(values: ValuesFile, repository: Path) -> None:
    assert values.name_once(ReleaseValues(NEW), "Release", "c/b/1").is_new
    values.write(naming(OLD), "Put back", "c/b/1", mark=True)
    assert not values.name_once(ReleaseValues(NEW), "Release", "c/b/1").is_new
    assert values.read_adapter() == OLD
    assert commits(repository) == ["Put back", "Release", "Serve the base model"]


def test_what_is_given_up_before_it_was_named_never_is(values: ValuesFile, repository: Path) -> None:
    """The release step has read that the release is open, and sleeps; meanwhile it is aborted and closed."""
    for _ in range(2):
        values.write(lambda now: now, "Put back", "c/b/1", mark=True)
    assert not values.name_once(ReleaseValues(NEW), "Release", "c/b/1").is_new
    assert values.look("c/b/1") == (ReleaseValues(OLD), True)
    assert commits(repository) == ["Put back", "Serve the base model"]


def test_a_push_that_lost_is_decided_again(values: ValuesFile, repository: Path, tmp_path: Path) -> None:
    other = NEW.model_copy(update={"version": "9"})
    seen: list[AdapterRef] = []

    def decide(now: ReleaseValues) -> ReleaseValues:
        seen.append(now.adapter)
        if len(seen) == 1:  # somebody else pushes between our read and our push
            with ValuesFile(str(repository), "main", PATH) as theirs:
                theirs.write(naming(other), "Theirs", "c/x/1")
        return replace(now, adapter=NEW) if now.adapter == OLD else now

    assert not values.write(decide, "Ours", "c/b/1").is_new
    assert seen == [OLD, other]
    assert commits(repository)[0] == "Theirs"


@pytest.mark.parametrize(
    ("change", "says"),
    [({"url": "/nowhere.git"}, "git clone"), ({"branch": "prod"}, "prod"), ({"path": "no.yaml"}, "values_path")],
)
def test_a_wrong_place_is_the_users_to_mend(repository: Path, change: dict[str, str], says: str) -> None:
    place = {"url": str(repository), "branch": "main", "path": PATH, **change}
    with pytest.raises(UserError, match=says), ValuesFile(**place) as values:
        values.read_adapter()


def test_a_file_without_the_block_names_the_missing_key() -> None:
    with pytest.raises(UserError, match=r"lacks adapter\.digest"):
        adapter_in("adapter: {name: a, version: b, uri: c}", PATH)


def test_a_repository_that_goes_away_may_come_back(values: ValuesFile, repository: Path) -> None:
    away = repository.rename(repository.with_suffix(".away"))
    with pytest.raises(GitUnavailable):
        values.read_adapter()
    away.rename(repository)
    assert values.read_adapter() == OLD


@pytest.mark.parametrize(
    ("text", "wanted", "expected"),
    [
        (VALUES, ReleaseValues(OLD, skip_analysis=True), VALUES + "skipAnalysis: true\n"),
        (VALUES, ReleaseValues(OLD), VALUES),
        (VALUES, ReleaseValues(OLD, nonce="1-a"), VALUES + 'rolloutNonce: "1-a"\n'),
        (VALUES + "skipAnalysis: true # over\n", ReleaseValues(OLD), VALUES + "skipAnalysis: false # over\n"),
        ("skipAnalysis: false\n" + VALUES, ReleaseValues(OLD, "", True), "skipAnalysis: true\n" + VALUES),
        (VALUES + "...\n", ReleaseValues(OLD, "", True), VALUES + "skipAnalysis: true\n...\n"),
        (VALUES + "rolloutNonce:\n", ReleaseValues(OLD, "n"), VALUES + 'rolloutNonce: "n"\n'),
    ],
)
def test_only_the_value_that_is_wanted_changes(text: str, wanted: ReleaseValues, expected: str) -> None:
    assert with_values(text, wanted, "values.yaml") == expected


FLOW = "{" + 'adapter: {name: base, version: "0", uri: "", digest: base}' + "}"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (f"{FLOW}\n", ReleaseValues(OLD, skip_analysis=True)),  # nothing can be added below a flow mapping
        (VALUES + "skipAnalysis: &no false\nother: *no\n", ReleaseValues(OLD, skip_analysis=True)),
        ("base: &d {name: base, version: '0', uri: '', digest: base}\nadapter: *d\n", ReleaseValues(NEW)),
        (VALUES.replace("digest: base\n", "digest: &b base\n") + "what: *b\n", ReleaseValues(NEW)),
    ],
)
def test_a_file_that_a_write_would_break_is_refused_and_left(text: str, wanted: ReleaseValues) -> None:
    with pytest.raises(UserError, match="cannot be rewritten without changing more than its adapter"):
        with_values(text, wanted, "values.yaml")


def naming(adapter: AdapterRef, **changes: Any) -> DecideValues:
    return lambda now: replace(now, adapter=adapter, **changes)


def test_going_back_is_one_commit(repository: Path) -> None:
    with ValuesFile(str(repository), "main", "env/values.yaml") as values:
        commit = values.write(naming(NEW, skip_analysis=True), "Go back", "run/1")
        assert commit.is_new
        assert values.read_adapter() == NEW
        assert not values.write(naming(NEW, skip_analysis=True), "Go back", "run/1").is_new
    text = git("show", "main:env/values.yaml", cwd=repository)
    assert text.endswith("skipAnalysis: true\n")
    assert len(git("log", "--format=%h", "main", cwd=repository).splitlines()) == 2


def test_the_git_of_rehearsals_writes_what_real_git_does(repository: Path) -> None:
    fake = MemoryGit(OLD)
    fake.text = VALUES
    with ValuesFile(str(repository), "main", PATH) as real:
        for git_like in (real, fake):
            commits_made = [
                git_like.name_once(ReleaseValues(NEW, "attempt-2"), "Release", "run/1"),
                git_like.name_once(ReleaseValues(NEW, "attempt-2"), "Release", "run/1"),
                git_like.write(naming(OLD, skip_analysis=True), "Back", "run/2"),
                git_like.write(lambda now: replace(now, skip_analysis=False), "Analyse", "run/2"),
                git_like.write(lambda now: now, "Give up", "run/3", mark=True),
                git_like.write(lambda now: now, "Give up", "run/3", mark=True),
            ]
            assert [commit.is_new for commit in commits_made] == [True, False, True, True, True, False]
            assert git_like.look("run/3") == (ReleaseValues(OLD, "attempt-2"), True)
    assert git("show", f"main:{PATH}", cwd=repository) == fake.text


SECRET_URL = "https://me:s3cr3t-t0k3n@127.0.0.1:9/deploy.git"


def test_a_repository_that_is_away_at_the_start_is_waited_for_and_its_credentials_are_not_told() -> None:
    with ValuesFile(SECRET_URL, "main", PATH) as values, pytest.raises(GitUnavailable) as told:
        values.read_adapter()
    assert "https://***@127.0.0.1:9/deploy.git" in str(told.value)
    assert "s3cr3t" not in str(told.value)


def test_a_protected_branch_is_told_with_its_whole_reason(values: ValuesFile, repository: Path) -> None:
    hook = repository / "hooks" / "pre-receive"
    hook.write_text("#!/bin/sh\necho 'GH006: Protected branch update failed'\necho 'review required'\nexit 1\n")
    hook.chmod(0o755)
    with pytest.raises(GitUnavailable, match=r"GH006: Protected branch update failed .*review required"):
        values.write(naming(NEW), "Release adapter", "c/b/1")


def test_a_slow_repository_is_unavailable(values: ValuesFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gitops, "TIMEOUT_S", 0.001)
    with pytest.raises(GitUnavailable, match="no answer within"):
        values.read_adapter()
