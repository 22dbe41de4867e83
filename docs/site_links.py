"""MkDocs hook: links that leave docs/ become the repository's addresses, so that they work on the site as on GitHub.

A link to a file that is not there is a warning, which `mkdocs build --strict` turns into an error.
"""

import logging
import posixpath
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"(?P<open>\]\()(?P<path>\.\.?/[^)\s#]*)(?P<anchor>#[^)\s]*)?(?P<close>\))")
log = logging.getLogger("mkdocs.hooks.site_links")


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    return outside_links(markdown, page.file.src_uri, config["repo_url"])


def outside_links(markdown: str, page: str, repository: str) -> str:
    """The page's text; `page` is its path under docs/."""

    def address(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join("docs", posixpath.dirname(page), link["path"]))
        if target.startswith("docs/") and not target.endswith(".py"):  # programs are excluded from the site
            return link[0]
        path = ROOT / target
        if target.startswith("..") or not path.exists():
            log.warning("%s links to %s, which is not in the repository", page, link["path"])
            return link[0]
        kind = "tree" if path.is_dir() else "blob"
        return f"{link['open']}{repository}/{kind}/main/{target}{link['anchor'] or ''}{link['close']}"

    return LINK.sub(address, markdown)
