"""The lake's folders, as the code names them, against what infra/terraform lets each role do with them.

The folders come from the syntax tree of `components/ratchet`: every key of the store begins with one, as `tables/` in
`tables/triplets`. So a folder that a change adds fails here until a role may write it and the bucket knows its kind.
What each role really asks of S3 is held against the applied policies in test_terraform_applied.py.
"""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from ratchet.access import ROLES
from support.terraform_code import CODE, lists_of, objects_of

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "components" / "ratchet"
FIRST = re.compile(r"^([a-z][a-z_]*)/")
# Texts that begin like a key and are none; each must still be there.
OTHER = {
    "anonymous": "a user's name in a conversation's id",
    "application": "a media type",
    "apps": "a Kubernetes API",
    "dataset": "a path among MLflow's artifacts",
    "environments": "a path in the deployment's Git repository",
    "refs": "a name in Git",
    "scores": "a path in Langfuse's export",
    "text": "a media type",
}
# Where the code deletes objects: the module, and the folder in which it does.
DELETES = {
    "lake/maintenance.py": "tables",  # compaction, through deltalake's vacuum
    "training/checkpoints.py": "work",
    "training/train_adapter.py": "work",
    "validation/part_store.py": "parts",
}
ACCESS = objects_of(CODE / "roles.tf", "known_access")


def _modules() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(SOURCE.rglob("*.py")):
        yield path.relative_to(SOURCE).as_posix(), ast.parse(path.read_text())


def _heads(tree: ast.Module) -> Iterator[str]:
    """How each text of a module begins: literals and f-strings, with the module's own constants put in."""
    texts = {
        node.targets[0].id: node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    }
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    inner = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(_text(part, texts) for part in node.values[:2])
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings | inner:
            yield node.value
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "publish_tree":
            yield f"{_text(node.args[1], texts)}/"


def _text(node: ast.expr, texts: dict[str, str]) -> str:
    if isinstance(node, ast.FormattedValue):
        node = node.value
    if isinstance(node, ast.Name):
        return texts.get(node.id, "?")
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else "?"


def _named() -> dict[str, set[str]]:
    """Each first folder that some module names, with those modules."""
    found: dict[str, set[str]] = defaultdict(set)
    for module, tree in _modules():
        for head in _heads(tree):
            if match := FIRST.match(head):
                found[match[1]].add(module)
    return dict(found)


NAMED = _named()
FOLDERS = {folder: modules for folder, modules in NAMED.items() if folder not in OTHER}


def test_texts_that_are_no_folders_are_still_in_the_code() -> None:
    assert set(OTHER) <= set(NAMED), "take out of OTHER what nobody writes any more"


def test_the_bucket_knows_the_kind_of_every_folder_that_the_code_names() -> None:
    kinds = lists_of(CODE / "lake.tf")
    listed = [folder for kind in ("create_only", "by_digest", "mutable") for folder in kinds[kind]]
    assert sorted(listed) == sorted(FOLDERS), "each folder is in one list of lake.tf"
    assert set(kinds["permanent"]) < set(kinds["create_only"])


def _writer(module: str) -> str:
    """People's events are the router's; releases, gate and duels have roles of their own; all else is the steps'."""
    if module == "ingest/landing.py":
        return "router"
    if module == "release/gate/duel_log.py":
        return "duels"
    if module.startswith("release/gate/"):
        return "gate"
    return "release" if module.startswith("release/") else "steps"


# What a role writes through modules that it shares with the steps.
SHARED = {"release": {"manifests"}, "duels": {"judgements"}}


@pytest.mark.parametrize("role", ["duels", "gate", "release", "router", "steps"])
def test_role_writes_what_its_code_names_and_no_more(role: str) -> None:
    named = {folder for folder, modules in FOLDERS.items() if role in map(_writer, modules)}
    assert set(ACCESS[role]["write"]) == named | SHARED.get(role, set())


def test_kubeflows_role_is_that_of_steps_and_release_together() -> None:
    for right in ("write", "delete"):
        assert set(ACCESS["pipelines"][right]) == {*ACCESS["steps"][right], *ACCESS["release"][right]}
    assert ACCESS["pipelines"]["read"] == ["*"]


def test_steps_delete_where_the_code_does_and_nowhere_else() -> None:
    deleting = {
        module
        for module, tree in _modules()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and _is_delete(node.func)
    }
    assert deleting == set(DELETES), "name the folder of a module that deletes"
    assert all(folder in FOLDERS for folder in DELETES.values())
    assert set(ACCESS["steps"]["delete"]) == set(DELETES.values())
    assert not [role for role in ACCESS if ACCESS[role]["delete"] and role not in ("steps", "pipelines")]


def _is_delete(function: ast.Attribute) -> bool:
    """`store.remove(…)`, `self.store.remove(…)`, and a Delta table's `vacuum(…)`."""
    owner = function.value
    name = owner.attr if isinstance(owner, ast.Attribute) else owner.id if isinstance(owner, ast.Name) else ""
    return function.attr == "vacuum" or (function.attr == "remove" and name == "store")


def test_nobody_may_read_or_write_a_folder_that_the_code_does_not_know() -> None:
    known = {*FOLDERS, "*"}
    unknown = {
        (role, folder)
        for role, rights in ACCESS.items()
        for right in ("read", "write", "delete")
        for folder in rights[right]
        if folder not in known
    }
    assert not unknown


def test_whoever_writes_a_folder_or_deletes_in_it_may_read_it_but_for_the_router() -> None:
    """`create_if_absent` and `replace` read back what is there. The router's events are new each time."""
    blind = {
        (role, folder)
        for role, rights in ACCESS.items()
        if "*" not in rights["read"]
        for folder in (*rights["write"], *rights["delete"])
        if folder not in rights["read"]
    }
    assert blind == {("router", "events")}


def test_page_says_what_each_role_may_do() -> None:
    """The table of docs/infrastructure.md, read as a reader reads it."""
    page = (ROOT / "docs" / "infrastructure.md").read_text()
    _, _, table = page.partition("| role | service account | lake: reads | writes | deletes |\n")
    rows = re.findall(r"^\| `([a-z-]+)` \|(.*)\|$", table.partition("\n\n")[0], re.MULTILINE)
    said = {role: [_folders(cell.strip()) for cell in cells.split("|")[1:]] for role, cells in rows}
    assert said == {
        role: [set(FOLDERS) if "*" in rights[right] else set(rights[right]) for right in ("read", "write", "delete")]
        for role, rights in ACCESS.items()
    }


def _folders(cell: str) -> set[str]:
    """`all`, `all but …` and lists of names; anything else is no folder of the lake."""
    names = set(re.findall(r"`([a-z_]+)`", cell))
    return set(FOLDERS) - names if cell.startswith("all") else names


@pytest.mark.parametrize("role", ROLES)
def test_the_doctor_tries_what_the_role_is_granted(role: str) -> None:
    granted = ACCESS[role]
    for verb, folders in (("read", ROLES[role].read), ("write", ROLES[role].write), ("delete", ROLES[role].delete)):
        assert sorted(folders) == sorted(granted[verb]), verb


def test_every_role_that_a_service_account_is_given_is_made_for_that_account() -> None:
    """What infra/argocd and the charts' values annotate, against the accounts that each role trusts."""
    annotated = set(re.findall(r"role/[\w-]*ratchet-([\w-]+)", "".join(map(Path.read_text, _yaml_of("infra")))))
    annotated |= set(re.findall(r'"role" "([\w-]+)"', "".join(map(Path.read_text, _yaml_of("infra/argocd")))))
    assert len(annotated) >= 4
    assert annotated <= set(ACCESS)


def _yaml_of(folder: str) -> Iterator[Path]:
    return (path for path in (ROOT / folder).rglob("*.yaml") if "workflows" not in path.parts)
