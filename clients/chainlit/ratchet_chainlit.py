"""Send Chainlit's thumbs to a Ratchet router: a data layer of its own, or mixed into the one that you have.

@cl.data_layer
def data_layer():
    return RatchetDataLayer()  # or of class Layer(SendsVotes, SQLAlchemyDataLayer)

await cl.Message(answer, metadata={"completion_id": completion_id(completion)}).send()
"""

import uuid
from typing import Any

from chainlit.data.base import BaseDataLayer
from chainlit.types import Feedback, PageInfo, PaginatedResponse
from ratchet_client import AsyncRatchet

MAX_REMEMBERED = 10_000


class SendsVotes(BaseDataLayer):
    """Mix in before another data layer: what it stores it still stores, and thumbs go to the router as well.

    The router is that of OPENAI_BASE_URL and OPENAI_API_KEY. Messages without `completion_id` in their metadata are not
    voted on. A vote that the router does not take is shown to the user as an error, and not stored.
    """

    def __init__(self, *args: Any, router: AsyncRatchet | None = None, **fields: Any) -> None:
        super().__init__(*args, **fields)
        self._router = router or AsyncRatchet()
        self._answers: dict[str, str] = {}  # a message's id -> its completion's
        self._votes: dict[str, str] = {}  # a feedback's id -> the completion's

    async def create_step(self, step_dict: Any) -> Any:
        """Remember which completion a message is."""
        self._remember(step_dict)
        return await super().create_step(step_dict)  # type: ignore[safe-super]

    async def update_step(self, step_dict: Any) -> Any:
        """Remember which completion a message is; a streamed one has its metadata only now."""
        self._remember(step_dict)
        return await super().update_step(step_dict)  # type: ignore[safe-super]

    async def upsert_feedback(self, feedback: Feedback) -> str:
        """Send the thumb, and its comment, then store it."""
        completion = await self._completion(feedback)
        if completion:
            await self._router.vote(completion, up=feedback.value == 1, comment=feedback.comment or None)
        feedback.id = feedback.id or str(uuid.uuid4())
        feedback_id = await super().upsert_feedback(feedback) or feedback.id  # type: ignore[safe-super]
        if completion:
            _keep(self._votes, feedback_id, completion)
        return feedback_id

    async def delete_feedback(self, feedback_id: str) -> bool:
        """Take the thumb back, if this process sent it, then delete it."""
        if completion := self._votes.pop(feedback_id, None):
            await self._router.retract(completion)
        return await super().delete_feedback(feedback_id)  # type: ignore[safe-super]

    def _remember(self, step: Any) -> None:
        if completion := (step.get("metadata") or {}).get("completion_id"):
            _keep(self._answers, step["id"], completion)

    async def _completion(self, feedback: Feedback) -> str | None:
        if feedback.forId in self._answers or feedback.threadId is None:
            return self._answers.get(feedback.forId)
        thread = await self.get_thread(feedback.threadId)  # of a process before this one
        for step in (thread or {}).get("steps") or ():
            self._remember(step)
        return self._answers.get(feedback.forId)


def _keep(texts: dict[str, str], name: str, text: str) -> None:
    texts[name] = text
    if len(texts) > MAX_REMEMBERED:
        del texts[next(iter(texts))]


class _Nothing(BaseDataLayer):
    """A data layer that stores nothing: Chainlit shows its thumbs only where there is one."""

    async def get_user(self, identifier: str) -> None: ...
    async def create_user(self, user: Any) -> None: ...
    async def upsert_feedback(self, feedback: Feedback) -> str:
        return feedback.id or ""

    async def delete_feedback(self, feedback_id: str) -> bool:
        return True

    async def create_element(self, element: Any) -> None: ...
    async def get_element(self, thread_id: str, element_id: str) -> None: ...
    async def delete_element(self, element_id: str, thread_id: str | None = None) -> None: ...
    async def create_step(self, step_dict: Any) -> None: ...
    async def update_step(self, step_dict: Any) -> None: ...
    async def delete_step(self, step_id: str) -> None: ...
    async def get_thread_author(self, thread_id: str) -> str:
        return ""

    async def delete_thread(self, thread_id: str) -> None: ...
    async def list_threads(self, pagination: Any, filters: Any) -> PaginatedResponse[Any]:
        return PaginatedResponse(data=[], pageInfo=PageInfo(hasNextPage=False, startCursor=None, endCursor=None))

    async def get_thread(self, thread_id: str) -> None: ...
    async def update_thread(self, thread_id: str, *args: Any, **fields: Any) -> None: ...
    async def build_debug_url(self) -> str:
        return ""

    async def close(self) -> None: ...
    async def get_favorite_steps(self, user_id: str) -> list[Any]:
        return []


class RatchetDataLayer(SendsVotes, _Nothing):
    """Sends thumbs to the router and stores nothing, for an app that has no data layer."""
