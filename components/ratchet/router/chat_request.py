"""Read the part of a chat completion request that routing, limits and recording need."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, FailFast, Field, model_validator

from ratchet.events import Message
from ratchet.router.feedback import Id


class Metadata(BaseModel):
    conversation_id: Id | None = None
    tenant: Id = "default"


class ChatMessage(Message):
    """One message; parts of text are joined by line breaks, as vLLM does, and no content beside tool calls is empty."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]

    @model_validator(mode="before")
    @classmethod
    def _content_as_text(cls, message: Any) -> Any:
        if not isinstance(message, dict):
            return message
        content = message.get("content")
        if content is None and message.get("tool_calls"):
            return {**message, "content": ""}
        if isinstance(content, list):
            if not all(isinstance(part, dict) and part.get("type") == "text" for part in content):
                raise ValueError("content may hold parts of type text only")
            return {**message, "content": "\n".join(str(part.get("text", "")) for part in content)}
        return message


class ChatRequest(BaseModel):
    """The part of a chat completion request that the router reads; the pool gets all of it."""

    model: str
    messages: Annotated[list[ChatMessage], FailFast(), Field(min_length=1)]
    n: Literal[1] | None = Field(None, description="one answer is one interaction")
    stream: bool = False
    user: Id | None = None
    metadata: Metadata = Metadata()

    def as_recorded(self, body: dict[str, Any]) -> dict[str, Any]:
        """Return the body with the parts of a content put together here, so that the pool reads what is recorded."""
        messages = [
            {**given, "content": message.content} if isinstance(given.get("content"), list) else given
            for given, message in zip(body["messages"], self.messages, strict=True)
        ]
        return {**body, "messages": messages}
