"""The reference pages say what the code says now, and leave nothing out."""

import os
import re
from pathlib import Path
from typing import Annotated, Literal

import pytest
import typer
from pydantic import BaseModel, Field

from docs import reference

ROOT = Path(__file__).parents[2]
PROGRAMS = ("components", "pipelines", "dags", "charts")


@pytest.mark.parametrize("name", reference.PAGES)
def test_reference_page_is_golden(name: str) -> None:
    page = reference.DOCS / name
    text = page.read_text(encoding="utf-8")
    made = reference.renewed(text)
    if os.environ.get("REGENERATE_GOLDEN") == "1":
        page.write_text(made, encoding="utf-8")
        text = made
    assert made == text, "run once with REGENERATE_GOLDEN=1 and review the difference"


@pytest.mark.parametrize("name", reference.PAGES)
def test_no_path_of_the_machine_that_wrote_it_is_on_a_page(name: str) -> None:
    assert str(reference.CHECKOUT) not in (reference.DOCS / name).read_text(encoding="utf-8")
    assert reference._plain(reference.CHECKOUT / "charts" / "one") == "charts/one"


def test_every_generated_part_stands_on_one_page() -> None:
    pages = [(reference.DOCS / name).read_text(encoding="utf-8") for name in reference.PAGES]
    marks = [mark for page in pages for mark in re.findall(r"<!-- generated: (\w+) -->", page)]
    assert sorted(marks) == sorted(reference.PARTS)
    assert sum(page.count("<!-- end -->") for page in pages) == len(marks)


def test_every_variable_that_a_program_reads_is_on_the_page() -> None:
    sources = (path for top in PROGRAMS for path in (ROOT / top).rglob("*") if path.suffix in (".py", ".yaml"))
    read = {name for path in sources for name in re.findall(r"RATCHET_[A-Z_]+[A-Z]", path.read_text(encoding="utf-8"))}
    assert len(read) > 10
    page = (reference.DOCS / "configuration.md").read_text(encoding="utf-8")
    assert sorted(name for name in read if f"`{name}`" not in page) == []


def test_a_section_is_a_table_of_keys_with_bounds_and_nested_sections(monkeypatch: pytest.MonkeyPatch) -> None:
    class Inner(BaseModel):
        """Inside."""

        share: float = Field(0.5, gt=0, le=1, description="a | b")

    class Outer(BaseModel):
        name: str | None = None
        inner: Inner = Inner()

    monkeypatch.setattr(reference, "Config", Outer)
    made = reference.configuration()
    assert "| `name` `null` | text or null |" in made
    assert "### `inner`\n\nInside.\n" in made
    assert "| `share` `0.5` | number, > 0, ≤ 1: a &#124; b |" in made


def test_commands_stand_under_their_panels_with_groups_and_options(monkeypatch: pytest.MonkeyPatch) -> None:
    app, group = typer.Typer(), typer.Typer(name="lake", help="The lake.")

    @app.command(rich_help_panel="Services")
    def serve(
        arm: Annotated[Literal["primary", "canary"], typer.Option(help="Which.")],
        score: Annotated[list[str] | None, typer.Option(help="What.")] = None,
        port: Annotated[int, typer.Option(envvar="PORT", help="Where to <listen>.")] = 8000,
    ) -> None:
        """Serve it."""

    @app.command(hidden=True)
    def secret() -> None:
        """Not shown."""

    @group.command()
    def status(name: str) -> None:
        """Say how it stands."""

    app.add_typer(group, rich_help_panel="Data")
    monkeypatch.setattr(reference, "application", lambda: app)
    made = reference.commands()
    assert made.index("## Services") < made.index("### `ratchet serve`") < made.index("## Data")
    assert "### `ratchet lake status`\n\nSay how it stands.\n\n    ratchet lake status" in made
    assert "| `--port` | integer: Where to &lt;listen>. Default: `8000`. Environment: `PORT`. |" in made
    assert "| `--arm` | `primary` or `canary`: Which. Required. |" in made
    assert "| `--score` | text, repeatable: What. |" in made
    assert "secret" not in made
