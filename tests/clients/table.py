"""Write the matrix as a table into docs/clients.md: `REGENERATE_GOLDEN=1 make test-clients`."""

from collections.abc import Mapping

from tests.clients.matrix import CELLS, CLIENTS, ROOT, VOTES, Runs

PAGE = ROOT / "docs" / "clients.md"
BEGIN, END = "<!-- The matrix, written by tests/clients/table.py -->\n", "<!-- The matrix ends -->\n"
SAME, OTHER, NONE = "same", "**differs**", ""


def with_table(page: str, runs: Mapping[str, Runs]) -> str:
    """Return the page with the table of these runs in place of the one it has."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{_table(runs)}\n{END}{after}"


def _table(runs: Mapping[str, Runs]) -> str:
    names = [f"{client.name} ({client.version})" for client in CLIENTS]
    lines = ["| | " + " | ".join(names) + " |", "|---" * (1 + len(names)) + "|"]
    for cell in CELLS:
        marks = [_mark(runs[client.name], cell) if cell in client.cells else NONE for client in CLIENTS]
        lines.append(f"| {cell.replace('_', ' ')} | " + " | ".join(marks) + " |")
    return "\n".join(lines) + "\n"


def _mark(runs: Runs, cell: str) -> str:
    if any(runs.faults(cell)):
        return OTHER
    return "counted" if cell in VOTES else SAME
