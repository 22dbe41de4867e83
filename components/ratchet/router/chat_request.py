"""Read the part of a chat completion request that routing, limits and recording need."""

from collections.abc import Mapping
from hashlib import sha256
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, FailFast, Field, model_validator

from ratchet.events import Message

MAX_NAME_CHARS = 256
USER_HEADER, CHAT_HEADER = "x-openwebui-user-id", "x-openwebui-chat-id"  # by ENABLE_FORWARD_USER_INFO_HEADERS


def _as_name(given: Any) -> str | None:
    """Return a name of a person or a chat as it is recorded: clients send null, empty texts, numbers, whole tokens."""
    if isinstance(given, int) and not isinstance(given, bool):
        given = str(given)
    if not isinstance(given, str) or not given:
        return None
    return given if len(given) <= MAX_NAME_CHARS else f"sha256:{sha256(given.encode()).hexdigest()}"


def _as_object(given: Any) -> Any:
    return given if isinstance(given, dict) else {}


Name = Annotated[str | None, BeforeValidator(_as_name)]


class Metadata(BaseModel):
    conversation_id: Name = None
    tenant: Name = None


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
    stream: bool | None = False
    safety_identifier: Name = Field(None, description="who asks; OpenAI's newer name for `user`")
    user: Name = Field(None, description="who asks, if `safety_identifier` does not say")
    metadata: Annotated[Metadata, BeforeValidator(_as_object)] = Metadata()

    @property
    def asked_by(self) -> str | None:
        """Who asks, by the first name that the client gives; None if it gives none."""
        return self.safety_identifier or self.user

    def named_by(self, headers: Mapping[str, str]) -> Self:
        """Return the request with person and chat from a front end's headers, where the body names none."""
        chat = self.metadata.conversation_id or _as_name(headers.get(CHAT_HEADER))
        return self.model_copy(
            update={
                "user": self.asked_by or _as_name(headers.get(USER_HEADER)),
                "metadata": self.metadata.model_copy(update={"conversation_id": chat}),
            }
        )

    def as_recorded(self, body: dict[str, Any]) -> dict[str, Any]:
        """Return the body with the parts of a content put together here, so that the pool reads what is recorded."""
        messages = [
            {**given, "content": message.content} if isinstance(given.get("content"), list) else given
            for given, message in zip(body["messages"], self.messages, strict=True)
        ]
        return {**body, "messages": messages}
