"""The site: built without a warning, self-contained, and every link to the code holds."""

import logging
import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit
from xml.etree import ElementTree

import pytest
from docs.site_links import outside_links

from support import browser

ROOT = Path(__file__).parents[2]
REPOSITORY = "https://github.com/ratchet-lora/ratchet"
PICTURES = sorted((ROOT / "docs" / "pictures").glob("*.svg"))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    # Not --quiet: it drops warnings before --strict counts them.
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out


def test_every_page_is_built_and_no_program_is_published(site: Path) -> None:
    pages = {path.relative_to(ROOT / "docs").with_suffix(".html") for path in (ROOT / "docs").rglob("*.md")}
    assert pages - {path.relative_to(site) for path in site.rglob("*.html")} == set()
    assert list(site.rglob("*.py")) == []


def test_a_reader_fetches_nothing_from_another_host(site: Path) -> None:
    loading = re.compile(r"""<(?:script|img|iframe|source)[^>]*\ssrc="?([^"\s>]+)|<link\b([^>]*)>""")
    for page in site.rglob("*.html"):
        for source, link in loading.findall(page.read_text(encoding="utf-8")):
            address = source or _loaded(link)
            assert not urlsplit(address).netloc, f"{page.name} loads {address}"
    assert 'data-md-component="source"' not in (site / "index.html").read_text(encoding="utf-8")


def _loaded(link: str) -> str:
    """What a <link> loads; empty for those that only name another page, as rel=edit or rel=next do."""
    is_loaded = re.search(r'rel="?(stylesheet|icon|preload|preconnect|modulepreload)', link)
    address = re.search(r'href="?([^"\s>]+)', link)
    return address[1] if is_loaded and address else ""


def test_every_address_in_the_repository_names_a_file(site: Path) -> None:
    named = re.compile(rf"{re.escape(REPOSITORY)}/(?:blob|tree)/main/([^\"\s>#]*)")
    paths = {unquote(path) for page in site.rglob("*.html") for path in named.findall(page.read_text(encoding="utf-8"))}
    assert len(paths) > 50
    assert sorted(path for path in paths if not (ROOT / path).exists()) == []


@pytest.mark.skipif(browser.CHROMIUM is None, reason="no browser: `make system` brings chromium")
@pytest.mark.parametrize("width", [400, 1280])
def test_no_page_is_wider_than_the_window_and_all_pictures_load(site: Path, width: int, tmp_path: Path) -> None:
    with browser.page(tmp_path) as page:
        for path in sorted(site.rglob("*.html")):
            page.show(path.as_uri(), width, 900)
            page.until("location.protocol === 'file:' && document.readyState === 'complete'")
            # As layout has it: what a table scrolls within itself does not count.
            assert page.tell("document.documentElement.scrollWidth") <= width, path.name
            broken = "[...document.images].filter(one => one.naturalWidth === 0).map(one => one.src)"
            assert page.tell(broken) == [], path.name


def test_links_that_leave_the_docs_become_addresses() -> None:
    made = outside_links("[a](../README.md#limits) [b](../infra) [c](lake.md) [d](./lake.md)", "index.md", REPOSITORY)
    assert made == (
        f"[a]({REPOSITORY}/blob/main/README.md#limits) [b]({REPOSITORY}/tree/main/infra) [c](lake.md) [d](./lake.md)"
    )


def test_pages_in_folders_are_resolved_from_there() -> None:
    made = outside_links("[a](../../Makefile) [b](../lake.md)", "decisions/index.md", REPOSITORY)
    assert made == f"[a]({REPOSITORY}/blob/main/Makefile) [b](../lake.md)"


@pytest.mark.parametrize("link", ["../no/such/file.py", "../../etc/passwd"])
def test_a_link_to_no_file_of_the_repository_is_a_warning(link: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert outside_links(f"[a]({link})", "index.md", REPOSITORY) == f"[a]({link})"
    assert link in caplog.text


@pytest.mark.parametrize("picture", PICTURES, ids=lambda path: path.stem)
def test_a_picture_says_what_it_shows_brings_its_ground_and_a_dark_dress(picture: Path) -> None:
    text = picture.read_text(encoding="utf-8")
    root = ElementTree.fromstring(text)
    names = {element.tag.rpartition("}")[2] for element in root.iter()}
    assert {"title", "desc"} <= names
    assert not names & {"script", "image", "foreignObject"}
    assert "prefers-color-scheme: dark" in text
    assert 'class="ground"' in text
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")
    assert picture.name in "".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs").glob("*.md"))
