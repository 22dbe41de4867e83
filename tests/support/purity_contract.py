"""An import-linter contract: every module is pure unless it is listed as impure.

A pure module imports no library of `effects` (files, network, clock, processes) and no impure module; so by induction
nothing that it calls has an effect. A module that is not listed is held to that from the day on which it is written.
"""

import re
from typing import Any

from grimp import ImportGraph
from importlinter import Contract, ContractCheck, fields, output


class PurityContract(Contract):
    """Options: `packages` that are held to it, `effects` (libraries), `impure` (modules; `*` is one name)."""

    packages = fields.ListField(subfield=fields.StringField())
    effects = fields.ListField(subfield=fields.StringField())
    impure = fields.ListField(subfield=fields.StringField())

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:
        """Broken by an import with an effect in an unlisted module, or by an entry of `impure` that is not needed."""
        modules = sorted(name for name in graph.modules if name.split(".")[0] in self.packages)
        patterns = {entry: re.compile(re.escape(entry).replace(r"\*", r"[^.]+")) for entry in self.impure}
        impure = {name for name in modules if any(pattern.fullmatch(name) for pattern in patterns.values())}
        faults = {
            name: sorted(found)
            for name in modules
            if name not in impure and (found := self._effects_of(name, graph) | (self._imports(name, graph) & impure))
        }
        unneeded = [
            entry
            for entry, pattern in patterns.items()
            if not any(
                self._effects_of(name, graph) or self._imports(name, graph) & impure
                for name in impure
                if pattern.fullmatch(name)
            )
        ]
        return ContractCheck(kept=not faults and not unneeded, metadata={"faults": faults, "unneeded": unneeded})

    def render_broken_contract(self, check: ContractCheck) -> None:
        faults: dict[str, list[str]] = check.metadata["faults"]
        for name, found in faults.items():
            output.print_error(f"{name} is not listed as impure, but imports {', '.join(found)}")
        unneeded: list[Any] = check.metadata["unneeded"]
        for entry in unneeded:
            output.print_error(f"{entry} is listed as impure, but nothing that it names has an effect: take it out")

    def _imports(self, name: str, graph: ImportGraph) -> set[str]:
        return set(graph.find_modules_directly_imported_by(name))

    def _effects_of(self, name: str, graph: ImportGraph) -> set[str]:
        return {found for found in self._imports(name, graph) if found.split(".")[0] in self.effects}
