"""Send votes to a router's /v1/feedback, and send them again where that is safe."""

import asyncio
import json
import os
import random
import time
import uuid
from functools import cache
from typing import Any

import httpx

from ratchet_client.errors import RatchetError
from ratchet_client.ids import completion_id

RETRIED = (429, 503)  # the router took nothing, and says when to come again
FIRST_PAUSE_S = 0.5
MAX_PAUSE_S = 30.0
ADVICE = {
    401: "set OPENAI_API_KEY, or api_key, to your tenant's key of this router",
    404: "OPENAI_BASE_URL, or base_url, must be that of a Ratchet router, with its /v1",
    413: "shorten the comment or correction",
    429: "this user votes faster than the router allows: try again later",
}


class _Votes:
    """What both clients share: where the router is, what a vote says, and when to send it again."""

    def __init__(self, base_url: str | None, api_key: str | None, max_retries: int) -> None:
        base_url = base_url or os.environ.get("OPENAI_BASE_URL")
        if not base_url:
            raise RatchetError(
                "where is the router? Set OPENAI_BASE_URL, or base_url, to the address that your chats go to"
            )
        api_key = api_key or os.environ.get("OPENAI_API_KEY")
        self.url = f"{base_url.rstrip('/')}/feedback"
        self.headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
        self.max_retries = max_retries

    def pause_s(self, attempt: int, came: httpx.Response | httpx.TransportError) -> float | None:
        """Return how long to wait before the vote is sent again; None if this is how it ended."""
        if attempt >= self.max_retries or (isinstance(came, httpx.Response) and came.status_code not in RETRIED):
            return None
        given = came.headers.get("retry-after", "") if isinstance(came, httpx.Response) else ""
        if given.isdecimal():
            return float(given) if float(given) <= MAX_PAUSE_S else None
        return FIRST_PAUSE_S * 2.0**attempt * random.uniform(0.5, 1)

    def taken(self, came: httpx.Response | httpx.TransportError) -> str:
        """Return the vote's id. Raises RatchetError for all that is no vote taken."""
        if isinstance(came, httpx.TransportError):
            raise RatchetError(f"no answer from {self.url} ({came!r}); is the router there?") from came
        try:
            answer = came.json()
        except json.JSONDecodeError:
            answer = None
        if came.is_success and isinstance(answer, dict) and "feedback_id" in answer:
            return str(answer["feedback_id"])
        try:
            said = answer["error"]["message"]
        except (KeyError, TypeError):
            said = came.text[:200]
        advice = ADVICE.get(came.status_code) or ("it is no Ratchet router" if came.is_success else "")
        message = f"{self.url} answered {came.status_code}: {said}"
        raise RatchetError(f"{message} ({advice})" if advice else message, came.status_code)


class Ratchet:
    """Sends votes to one router.

    Args:
        base_url: The router's address with its /v1; OPENAI_BASE_URL if not given.
        api_key: The tenant's key; OPENAI_API_KEY if not given. A router without tenants needs none.
        timeout_s: Of one attempt.
        max_retries: Further attempts if no answer comes, or 429 or 503. They count as the same vote.
    """

    def __init__(
        self, base_url: str | None = None, api_key: str | None = None, *, timeout_s: float = 10, max_retries: int = 2
    ) -> None:
        self._votes = _Votes(base_url, api_key, max_retries)
        self._http = httpx.Client(headers=self._votes.headers, timeout=timeout_s)

    def vote(
        self,
        completion: object,
        up: bool | None = True,
        *,
        user: str | None = None,
        comment: str | None = None,
        tags: list[str] | None = None,
        rating: int | None = None,
        correction: str | None = None,
        better_than: object = None,
        choice: int = 0,
    ) -> str:
        """Send a vote: a thumb, or else the rating, the correction or the preference that is given.

        Another value of the same kind by the same user replaces the one before.

        Args:
            completion: A client library's completion, chunk, stream, response, message or result; or an id.
            up: Whether the thumb points up. None with a comment sends the comment alone.
            user: Who votes; whoever asked if not given.
            comment: Free text beside the vote.
            tags: Short texts beside the vote.
            rating: 1 to 5.
            correction: The text that the answer should have been.
            better_than: The completion that lost, or the index of the choice of the same completion that lost.
            choice: The index of the choice that is voted on.

        Returns:
            The vote's id in the lake.

        Raises:
            RatchetError: if the router did not take the vote.
        """
        value = _value(up, comment, rating, correction, better_than)
        return self._send(_body(completion, value, user=user, comment=comment, tags=tags, choice=choice))

    def retract(self, completion: object, kind: str = "thumb", *, user: str | None = None, choice: int = 0) -> str:
        """Take back this user's vote of this kind (thumb, rating, correction, preference, comment)."""
        return self._send(_retraction(completion, kind, user, choice))

    def _send(self, body: dict[str, Any]) -> str:
        attempt = 0
        while True:
            came: httpx.Response | httpx.TransportError
            try:
                came = self._http.post(self._votes.url, json=body)
            except httpx.TransportError as error:
                came = error
            pause_s = self._votes.pause_s(attempt, came)
            if pause_s is None:
                return self._votes.taken(came)
            time.sleep(pause_s)
            attempt += 1

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> "Ratchet":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncRatchet:
    """Sends votes to one router, for asyncio; otherwise as `Ratchet`."""

    def __init__(
        self, base_url: str | None = None, api_key: str | None = None, *, timeout_s: float = 10, max_retries: int = 2
    ) -> None:
        self._votes = _Votes(base_url, api_key, max_retries)
        self._http = httpx.AsyncClient(headers=self._votes.headers, timeout=timeout_s)

    async def vote(
        self,
        completion: object,
        up: bool | None = True,
        *,
        user: str | None = None,
        comment: str | None = None,
        tags: list[str] | None = None,
        rating: int | None = None,
        correction: str | None = None,
        better_than: object = None,
        choice: int = 0,
    ) -> str:
        """Send a vote, as `Ratchet.vote` does."""
        value = _value(up, comment, rating, correction, better_than)
        return await self._send(_body(completion, value, user=user, comment=comment, tags=tags, choice=choice))

    async def retract(
        self, completion: object, kind: str = "thumb", *, user: str | None = None, choice: int = 0
    ) -> str:
        """Take back this user's vote of this kind, as `Ratchet.retract` does."""
        return await self._send(_retraction(completion, kind, user, choice))

    async def _send(self, body: dict[str, Any]) -> str:
        attempt = 0
        while True:
            came: httpx.Response | httpx.TransportError
            try:
                came = await self._http.post(self._votes.url, json=body)
            except httpx.TransportError as error:
                came = error
            pause_s = self._votes.pause_s(attempt, came)
            if pause_s is None:
                return self._votes.taken(came)
            await asyncio.sleep(pause_s)
            attempt += 1

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> "AsyncRatchet":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


@cache
def _of_environment(base_url: str | None, api_key: str | None) -> Ratchet:
    return Ratchet(base_url, api_key)


def vote(completion: object, up: bool | None = True, **fields: Any) -> str:
    """Send a vote to the router of OPENAI_BASE_URL and OPENAI_API_KEY; the fields are those of `Ratchet.vote`."""
    return _of_environment(os.environ.get("OPENAI_BASE_URL"), os.environ.get("OPENAI_API_KEY")).vote(
        completion, up, **fields
    )


def retract(completion: object, kind: str = "thumb", **fields: Any) -> str:
    """Take back a vote, as `Ratchet.retract` does, at the router of OPENAI_BASE_URL and OPENAI_API_KEY."""
    return _of_environment(os.environ.get("OPENAI_BASE_URL"), os.environ.get("OPENAI_API_KEY")).retract(
        completion, kind, **fields
    )


def _value(
    up: bool | None, comment: str | None, rating: int | None, correction: str | None, better_than: object
) -> dict[str, Any]:
    """Return kind and value. Raises RatchetError for none or several of them."""
    given: dict[str, Any] = {"rating": rating, "correction": correction, "preference": better_than}
    given = {kind: value for kind, value in given.items() if value is not None}
    if len(given) > 1 or (given and up is False):
        kinds = [*given, *(["up=False"] if up is False else [])]
        raise RatchetError(f"{' and '.join(kinds)} are several votes: call vote() once for each")
    if given:
        [(kind, value)] = given.items()
        is_id = kind == "preference" and not isinstance(value, int)
        return {"kind": kind, "value": completion_id(value) if is_id else value}
    if up is not None:
        return {"kind": "thumb", "value": 1 if up else -1}
    if comment is None:
        raise RatchetError("an empty vote: give up, rating, correction, better_than or comment")
    return {"kind": "comment", "value": comment}


def _body(completion: object, value: dict[str, Any], **beside: Any) -> dict[str, Any]:
    if value["kind"] == "comment":
        del beside["comment"]
    body = {"id": completion_id(completion), **value, **beside, "feedback_id": uuid.uuid4().hex}
    return {name: given for name, given in body.items() if given is not None}


# The router wants a value of the right kind also with what is taken back; it counts for nothing.
_TAKEN_BACK: dict[str, Any] = {"thumb": 1, "rating": 1, "correction": "-", "comment": "-", "preference": 1}


def _retraction(completion: object, kind: str, user: str | None, choice: int) -> dict[str, Any]:
    if kind not in _TAKEN_BACK:
        raise RatchetError(f"kind = {kind!r}: known are {', '.join(_TAKEN_BACK)}")
    value = {"kind": kind, "value": _TAKEN_BACK[kind], "is_retracted": True}
    if kind == "preference" and choice:
        value["value"] = 0  # any choice but the one that won
    return _body(completion, value, user=user, comment=None, choice=choice)
