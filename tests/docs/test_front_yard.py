"""The files at the root and in .github name what is there: targets, paths, versions, commands."""

import hashlib
import re
import shlex
import tomllib
from importlib.metadata import distributions
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
PROSE = ("CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "CODE_OF_CONDUCT.md")
# apache.org/licenses/LICENSE-2.0.txt, as many distributions ship it unchanged.
APACHE = "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30"


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def read_yaml(path: Path) -> Any:
    """As GitHub reads it: BaseLoader leaves the key `on` a text, which YAML 1.1 calls true."""
    return yaml.load(path.read_text(encoding="utf-8"), yaml.BaseLoader)


def project() -> dict[str, Any]:
    return tomllib.loads(text("pyproject.toml"))


def targets() -> set[str]:
    return set(re.findall(r"^([a-z][a-z-]*):", text("Makefile"), re.MULTILINE))


def steps(workflow: Path) -> list[dict[str, Any]]:
    return [step for job in read_yaml(workflow)["jobs"].values() for step in job.get("steps", [])]


def test_the_licence_is_the_canonical_text() -> None:
    ours = (ROOT / "LICENSE").read_bytes()
    assert hashlib.sha256(ours).hexdigest() == APACHE
    assert project()["project"]["license"] == "Apache-2.0"


def test_the_licence_is_what_others_ship_too() -> None:
    ours = (ROOT / "LICENSE").read_bytes()
    licences = (
        (found.metadata["Name"], Path(str(file.locate())))
        for found in distributions()
        for file in found.files or []
        if file.name in ("LICENSE", "LICENSE.txt") and ".dist-info" in str(file)
    )
    same = {name for name, path in licences if path.is_file() and path.read_bytes() == ours}
    assert same - {"ratchet-lora"}


@pytest.mark.parametrize("name", PROSE)
def test_links_of_the_front_yard_hold(name: str) -> None:
    for link in re.findall(r"\]\(([^)#\s]*)(?:#[^)\s]*)?\)", text(name)):
        if not link.startswith("http"):
            assert (ROOT / link.replace("\\", "")).exists(), link


@pytest.mark.parametrize("name", PROSE)
def test_paths_of_the_front_yard_are_there(name: str) -> None:
    """Paths in code, as `tests/support`; those with a blank to fill in, or a file to be made, are examples."""
    tops = {path.name for path in ROOT.iterdir() if not path.name.startswith(".venv")}
    for path in re.findall(r"[\w./-]+/[\w./-]*", re.sub(r"\]\([^)]*\)|<[^>]*>\S*", " ", text(name))):
        if path.split("/")[0] in tops and path.rstrip("/.") != "site":
            assert (ROOT / path.rstrip(".")).exists(), path


def test_every_make_target_that_is_named_exists() -> None:
    files = [*PROSE, ".github/PULL_REQUEST_TEMPLATE.md", "docs/index.md", "docs/cli.md"]
    call = re.compile(r"(?:`|^ {4,}|run: )make ([a-z][a-z-]*)", re.MULTILINE)  # as code, not as an English verb
    named = {name: set(call.findall(text(name))) for name in files}
    named |= {path.name: set(call.findall(path.read_text(encoding="utf-8"))) for path in WORKFLOWS}
    for name, words in named.items():
        assert words <= targets(), name
    assert {"check", "setup", "test-dags"} <= named["ci.yml"]


def test_every_owned_path_exists_and_the_last_rule_is_the_narrowest() -> None:
    rules = [line.split() for line in text(".github/CODEOWNERS").splitlines() if line and not line.startswith("#")]
    assert rules[0][0] == "*"
    for path, *owners in rules[1:]:
        assert (ROOT / path.strip("/")).exists(), path
        assert all(re.fullmatch(r"@[\w-]+/[\w-]+", owner) for owner in owners)
    for (earlier, *_), (later, *_) in pairwise(rules[1:]):
        assert not earlier.startswith(later), f"{later} hides {earlier}"


def test_ci_tests_every_version_of_python_that_the_package_allows() -> None:
    low, high = re.fullmatch(r">=3\.(\d+),<3\.(\d+)", project()["project"]["requires-python"]).groups()
    allowed = [f"3.{minor}" for minor in range(int(low), int(high))]
    ci = read_yaml(ROOT / ".github" / "workflows" / "ci.yml")
    assert ci["jobs"]["tests"]["strategy"]["matrix"]["python"] == allowed
    prefix = "Programming Language :: Python :: "
    named = [line.removeprefix(prefix) for line in project()["project"]["classifiers"] if line.startswith(prefix)]
    assert [version for version in named if version.startswith("3.")] == allowed


def test_ci_leaves_no_test_out() -> None:
    """What one job ignores, another runs."""
    commands = [shlex.split(step["run"]) for step in steps(ROOT / ".github" / "workflows" / "ci.yml") if "run" in step]
    runs = [words for words in commands if words[0].endswith("pytest")]
    ignored = {folder for words in runs for flag, folder in pairwise(words) if flag == "--ignore"}
    given = {word for words in runs if "--ignore" not in words for word in words if word.startswith("tests/")}
    assert ignored == given != set()
    assert ["make", "check"] in commands
    assert ["make", "test-dags"] in commands


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_asks_for_little_ends_and_runs_once(workflow: Path) -> None:
    read = read_yaml(workflow)
    if list(read["on"]) != ["workflow_call"]:  # a called one has its caller's permissions and group
        assert read["permissions"] == {"contents": "read"}
        assert "group" in read["concurrency"]
    for job in read["jobs"].values():
        assert "uses" in job or "timeout-minutes" in job
    for step in steps(workflow):
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"] == {"persist-credentials": "false"}
        # A value in a script could hold a script; it comes in by the environment.
        assert "${{" not in step.get("run", "")


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_paths_in_a_workflow_exist(workflow: Path) -> None:
    read = workflow.read_text(encoding="utf-8")
    for path in re.findall(r"[\w./*-]+", read):
        top = path.split("/")[0]
        if top in ("tests", "requirements", "infra", ".github") and "/" in path:
            assert list(ROOT.glob(path.removesuffix("/"))), path
    for called in re.findall(r"uses: \./(\S+)", read):
        assert (ROOT / called).is_file()


def test_images_of_the_workflow_are_the_dockerfiles_and_their_stages() -> None:
    build = read_yaml(ROOT / ".github" / "workflows" / "build-images.yml")["jobs"]["build"]
    built = build["strategy"]["matrix"]["include"]
    folder = ROOT / "infra" / "images"
    for one in built:
        assert re.search(rf"^FROM .* AS {one['target']}$", (folder / one["dockerfile"]).read_text(), re.MULTILINE)
    assert {one["dockerfile"] for one in built} == {path.name for path in folder.glob("*.Dockerfile")}
    documented = set(re.findall(r"^\| `(ratchet-[\w-]+)` \|", text("docs/infrastructure.md"), re.MULTILINE))
    assert {one["image"] for one in built} == documented


def test_hooks_run_what_make_check_runs() -> None:
    makefile = text("Makefile")
    values = dict(re.findall(r"^(\w+) := (.*)$", makefile, re.MULTILINE))
    recipe = re.search(r"^check:.*\n((?:\t.*\n)+)", makefile, re.MULTILINE)
    assert recipe is not None
    commands = recipe[1].split("\n\t")
    for _ in range(3):  # a variable's value may name another
        commands = [re.sub(r"\$\((\w+)\)", lambda name: values[name[1]], command).strip() for command in commands]
    hooks = [hook for repo in read_yaml(ROOT / ".pre-commit-config.yaml")["repos"] for hook in repo["hooks"]]
    assert [hook["entry"] for hook in hooks] == commands
    assert not any("--quiet" in command for command in commands)  # with it, mkdocs --strict lets warnings pass
    assert all(hook["language"] == "system" and hook["pass_filenames"] == "false" for hook in hooks)


def test_one_version_and_one_address_everywhere() -> None:
    about = project()["project"]
    citation = read_yaml(ROOT / "CITATION.cff")
    assert citation["version"] == about["version"]
    assert f"## [{about['version']}]" in text("CHANGELOG.md")
    address = read_yaml(ROOT / "mkdocs.yml")["repo_url"]
    assert about["urls"]["Homepage"] == citation["repository-code"] == address
    assert all(url.startswith(address) for url in about["urls"].values())


def test_the_packages_tell_type_checkers_that_they_are_typed() -> None:
    data = project()["tool"]["setuptools"]["package-data"]
    for package, folder in {"ratchet": "components", "ratchet_pipelines": "pipelines"}.items():
        assert (ROOT / folder / package / "py.typed").is_file()
        assert "py.typed" in data[package]
