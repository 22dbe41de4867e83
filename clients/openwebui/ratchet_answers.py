"""
title: Ratchet: remember which completion a message is
author: The Ratchet authors
version: 0.1.0
required_open_webui_version: 0.12.0
description: A global filter that keeps the completion id of each streamed answer, for the function "Ratchet: votes".
"""  # noqa: D205, D212 - the form that Open WebUI reads

import sqlite3
from contextlib import closing
from typing import Any

from open_webui.env import DATA_DIR

PREFIX = "chatcmpl-"  # of the router's ids
TABLE = "CREATE TABLE IF NOT EXISTS answers (message_id TEXT PRIMARY KEY, completion_id TEXT NOT NULL)"


class Filter:
    """Open WebUI stores no completion ids, so the last one of each message is kept in a file beside its uploads."""

    def __init__(self) -> None:
        self._last = ("", "")

    def stream(self, event: dict[str, Any], __metadata__: dict[str, Any] | None = None) -> dict[str, Any]:
        """Keep the id of this chunk's completion; of several in one message, as tools make them, the last."""
        metadata = __metadata__ or {}
        seen = (str(metadata.get("message_id") or ""), str(event.get("id") or ""))
        if all(seen) and seen != self._last and seen[1].startswith(PREFIX) and not metadata.get("task"):
            with closing(sqlite3.connect(DATA_DIR / "ratchet.sqlite", timeout=5)) as file, file:
                file.execute(TABLE)
                file.execute("INSERT OR REPLACE INTO answers VALUES (?, ?)", seen)
            self._last = seen
        return event
