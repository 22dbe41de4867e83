"""
title: Ratchet: votes
author: The Ratchet authors
version: 0.1.0
required_open_webui_version: 0.12.0
requirements: ratchet-client
description: An event function that sends each thumb to the Ratchet router. It needs the filter that remembers answers.
"""  # noqa: D205, D212 - the form that Open WebUI reads

import os
import sqlite3
from contextlib import closing
from typing import Any

from open_webui.env import DATA_DIR
from open_webui.models.feedbacks import Feedbacks
from pydantic import BaseModel, Field
from ratchet_client import AsyncRatchet

TABLE = (
    "CREATE TABLE IF NOT EXISTS votes (feedback_id TEXT PRIMARY KEY, completion_id TEXT NOT NULL, user TEXT NOT NULL)"
)
CAST = ("feedback.created", "feedback.updated")
RATINGS = {"1": True, "-1": False}


class Event:
    """Sends a thumb when it is given or changed, with its comment and reasons, and takes it back when it is deleted."""

    class Valves(BaseModel):
        """Where the router is, if it is not the first OpenAI connection."""

        base_url: str = Field(
            default=os.environ.get("OPENAI_API_BASE_URL", ""), description="The router's address with its /v1"
        )
        api_key: str = Field(
            default=os.environ.get("OPENAI_API_KEY", ""), description="Your tenant's key of the router"
        )

    def __init__(self) -> None:
        self.valves = self.Valves()

    async def event(self, event: dict[str, Any]) -> None:
        """Handle one of Open WebUI's events; it logs what is raised, and the thumb stays as it is on the page."""
        if event["event"] in CAST:
            await self._cast(event["subject"]["id"])
        elif event["event"] == "feedback.deleted":
            await self._take_back(event["subject"]["id"])

    async def _cast(self, feedback_id: str) -> None:
        feedback = await Feedbacks.get_feedback_by_id(feedback_id)
        data, meta = (feedback.data or {}, feedback.meta or {}) if feedback else ({}, {})
        up = RATINGS.get(str(data.get("rating")))
        completion = _one("SELECT completion_id FROM answers WHERE message_id = ?", str(meta.get("message_id")))
        if up is None or completion is None:
            return  # of a model that is not the router's, or older than the filter
        tags = [tag for tag in (data.get("reason"), *(meta.get("tags") or ())) if tag]
        async with AsyncRatchet(self.valves.base_url, self.valves.api_key) as router:
            # The user's id is what Open WebUI sends in X-OpenWebUI-User-Id with ENABLE_FORWARD_USER_INFO_HEADERS.
            await router.vote(
                completion[0], up=up, user=feedback.user_id, comment=data.get("comment") or None, tags=tags or None
            )
        with closing(_file()) as file, file:
            file.execute(TABLE)
            file.execute("INSERT OR REPLACE INTO votes VALUES (?, ?, ?)", (feedback_id, *completion, feedback.user_id))

    async def _take_back(self, feedback_id: str) -> None:
        if cast := _one("SELECT completion_id, user FROM votes WHERE feedback_id = ?", feedback_id):
            async with AsyncRatchet(self.valves.base_url, self.valves.api_key) as router:
                await router.retract(cast[0], user=cast[1])


def _file() -> sqlite3.Connection:
    return sqlite3.connect(DATA_DIR / "ratchet.sqlite", timeout=5)


def _one(query: str, key: str) -> tuple[str, ...] | None:
    with closing(_file()) as file:
        try:
            return file.execute(query, (key,)).fetchone()
        except sqlite3.OperationalError:  # no such table: nothing was kept yet
            return None
