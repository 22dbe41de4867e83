"""The values file in a real repository: four keys change, nothing else does, and other writers are respected."""

from pathlib import Path

import pytest

from ratchet.adapter_ref import AdapterRef
from ratchet.errors import UserError
from ratchet.release.reconciler.gitops import GitUnavailable, ValuesFile, adapter_in, with_adapter, with_skip_analysis
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
    assert with_adapter(VALUES, NEW, PATH) == expected


@pytest.mark.parametrize(
    "text",
    [
        'adapter: {name: base, version: "0", uri: "", digest: base}\n',
        "adapter:\r\n  digest: base\r\n  uri:\r\n  version: '0'\r\n  name: base # ü\r\nlast: 1",
        "---\nother:\n  adapter: {name: x}\nadapter:\n  name: base\n  version: 0\n  uri:\n  digest: base",
    ],
)
def test_any_plain_yaml_can_be_rewritten_and_back(text: str) -> None:
    written = with_adapter(text, NEW, PATH)
    assert adapter_in(written, PATH) == NEW
    assert adapter_in(with_adapter(written, OLD, PATH), PATH) == OLD
    assert ("# ü" in text) == ("# ü" in written)
    assert text.count("\r\n") == written.count("\r\n")


def test_a_commit_carries_its_run_and_is_made_once(values: ValuesFile, repository: Path) -> None:
    first = values.write_adapter(lambda named: NEW, "Release adapter", "c/b/1")
    again = values.write_adapter(lambda named: NEW, "Release adapter", "c/b/1")
    assert (first.is_new, again.is_new, first.sha == again.sha) == (True, False, True)
    assert commits(repository) == ["Release adapter", "Serve the base model"]
    assert values.look("c/b/1") == (NEW, True)
    assert values.look("c/b/2") == (NEW, False)
    assert "Canary-Run: c/b/1" in git("log", "-1", "--format=%(trailers)", "main", cwd=repository)


def test_what_was_named_and_put_back_is_not_named_again(values: ValuesFile, repository: Path) -> None:
    assert values.name_once(NEW, "Release", "c/b/1").is_new
    values.write_adapter(lambda named: OLD, "Put back", "c/b/1", mark=True)
    assert not values.name_once(NEW, "Release", "c/b/1").is_new
    assert values.read_adapter() == OLD
    assert commits(repository) == ["Put back", "Release", "Serve the base model"]


def test_what_is_given_up_before_it_was_named_never_is(values: ValuesFile, repository: Path) -> None:
    """The release step has read that the release is open, and sleeps; meanwhile it is aborted and closed."""
    for _ in range(2):
        values.write_adapter(lambda named: None, "Put back", "c/b/1", mark=True)
    assert not values.name_once(NEW, "Release", "c/b/1").is_new
    assert values.look("c/b/1") == (OLD, True)
    assert commits(repository) == ["Put back", "Serve the base model"]


def test_a_push_that_lost_is_decided_again(values: ValuesFile, repository: Path, tmp_path: Path) -> None:
    other = NEW.model_copy(update={"version": "9"})
    seen: list[AdapterRef] = []

    def decide(named: AdapterRef) -> AdapterRef | None:
        seen.append(named)
        if len(seen) == 1:  # somebody else pushes between our read and our push
            with ValuesFile(str(repository), "main", PATH) as theirs:
                theirs.write_adapter(lambda named: other, "Theirs", "c/x/1")
        return NEW if named == OLD else None

    assert not values.write_adapter(decide, "Ours", "c/b/1").is_new
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
        (VALUES, True, VALUES + "skipAnalysis: true\n"),
        (VALUES, False, VALUES),
        (VALUES + "skipAnalysis: true # soon over\n", False, VALUES + "skipAnalysis: false # soon over\n"),
        ("skipAnalysis: false\n" + VALUES, True, "skipAnalysis: true\n" + VALUES),
    ],
)
def test_only_the_word_that_skips_the_analysis_changes(text: str, wanted: bool, expected: str) -> None:
    assert with_skip_analysis(text, wanted, "values.yaml") == expected


def test_going_back_is_one_commit(repository: Path) -> None:
    with ValuesFile(str(repository), "main", "env/values.yaml") as values:
        commit = values.write_adapter(lambda named: NEW, "Go back", "run/1", skip_analysis=True)
        assert commit.is_new
        assert values.read_adapter() == NEW
        assert not values.write_adapter(lambda named: NEW, "Go back", "run/1", skip_analysis=True).is_new
    text = git("show", "main:env/values.yaml", cwd=repository)
    assert text.endswith("skipAnalysis: true\n")
    assert len(git("log", "--format=%h", "main", cwd=repository).splitlines()) == 2


def test_the_git_of_rehearsals_writes_what_real_git_does(repository: Path) -> None:
    fake = MemoryGit(OLD)
    fake.text = VALUES
    with ValuesFile(str(repository), "main", PATH) as real:
        for git_like in (real, fake):
            commits_made = [
                git_like.name_once(NEW, "Release", "run/1"),
                git_like.name_once(NEW, "Release", "run/1"),
                git_like.write_adapter(lambda named: OLD, "Back", "run/2", skip_analysis=True),
                git_like.write_adapter(lambda named: None, "Analyse", "run/2", skip_analysis=False),
                git_like.write_adapter(lambda named: None, "Give up", "run/3", mark=True),
                git_like.write_adapter(lambda named: None, "Give up", "run/3", mark=True),
            ]
            assert [commit.is_new for commit in commits_made] == [True, False, True, True, True, False]
            assert git_like.look("run/3") == (OLD, True)
    assert git("show", f"main:{PATH}", cwd=repository) == fake.text
    assert not fake.skip_analysis
