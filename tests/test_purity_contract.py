"""The contract behind `lint-imports`: on small graphs, and that the shipped configuration uses it."""

import tomllib
from pathlib import Path

import pytest
from grimp import ImportGraph

from support.purity_contract import PurityContract

IMPORTS = {
    "app.pure": ("app.numbers",),
    "app.numbers": ("math",),
    "app.files": ("os",),
    "app.step": ("app.files", "app.pure"),
}


def check(impure: list[str], **more: tuple[str, ...]) -> dict[str, object]:
    graph = ImportGraph()
    for importer, imported in {**IMPORTS, **{name.replace("_", "."): found for name, found in more.items()}}.items():
        for name in imported:
            graph.add_import(importer=importer, imported=name)
    options = {"packages": ["app"], "effects": ["os", "time"], "impure": impure}
    contract = PurityContract(name="pure", session_options={}, contract_options=options)
    return contract.check(graph, verbose=False).metadata


def test_listed_modules_may_have_effects_and_the_others_have_none() -> None:
    assert check(["app.files", "app.step"]) == {"faults": {}, "unneeded": []}


@pytest.mark.parametrize("imported", ["time", "app.files"], ids=["a library", "an impure module"])
def test_a_new_module_is_held_to_purity_without_being_listed(imported: str) -> None:
    found = check(["app.files", "app.step"], app_new=(imported,))
    assert found["faults"] == {"app.new": [imported]}


def test_an_entry_that_is_not_needed_is_said() -> None:
    assert check(["app.files", "app.step", "app.pure", "app.gone"])["unneeded"] == ["app.pure", "app.gone"]


def test_the_project_is_held_to_it() -> None:
    settings = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["tool"]["importlinter"]
    (contract,) = [each for each in settings["contracts"] if each["type"] == "purity"]
    assert contract["packages"] == ["ratchet"]
    assert {"os", "time", "httpx", "boto3", "mlflow"} <= set(contract["effects"])
