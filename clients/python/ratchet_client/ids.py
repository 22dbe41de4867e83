"""Find the id of an answer in whatever a client library calls an answer, without importing any of them."""

from collections.abc import Mapping, Sequence
from typing import Any

from ratchet_client.errors import RatchetError

PREFIX = "chatcmpl-"  # of the router's ids; libraries put ids of their own into fields of the same name

# Where libraries keep the completion's id, or the x-request-id header, which is the same text. The first that holds one
# counts. A step is an attribute, a key, or a position in a list.
PATHS = (
    "_request_id",  # openai: the header, which also /v1/responses has, whose ids are the pool's own
    "id",  # openai, LiteLLM, a completion as a dict
    "request_id",  # openai's with_raw_response
    "headers.x-request-id",  # httpx, openai's with_streaming_response
    "headers.llm_provider-x-request-id",  # the same at a LiteLLM proxy
    "response.headers.x-request-id",  # openai's Stream
    "_raw_response._request_id",  # instructor
    "_raw_response.id",
    "response_metadata.id",  # LangChain's message
    "response_metadata.headers.x-request-id",  # its streams, of a model with include_response_headers=True
    "messages.-1.response_metadata.id",  # its agent
    "raw._request_id",  # LlamaIndex
    "raw.id",
    "response.provider_response_id",  # Pydantic AI's result
    "provider_response_id",  # its ModelResponse
    "raw_responses.-1.request_id",  # the Agents SDK's result
    "raw_responses.-1.output.-1.provider_data.response_id",
)


def completion_id(completion: object) -> str:
    """Return the id to vote on: a text as it is, else what a client library's answer holds.

    Raises:
        RatchetError: if it holds no id of a Ratchet router.
    """
    if isinstance(completion, str):
        return completion
    for path in PATHS:
        found = _at(completion, path.split("."))
        if isinstance(found, str) and found.startswith(PREFIX):
            return found
    raise RatchetError(
        f"no completion id in this {type(completion).__module__}.{type(completion).__qualname__}; if its request "
        f"went through a Ratchet router, pass the id ({PREFIX}...) or the answer's x-request-id header as a text"
    )


def _at(holder: Any, steps: Sequence[str]) -> Any:
    for step in steps:
        if isinstance(holder, Mapping):
            holder = holder.get(step)
        elif isinstance(holder, Sequence):
            holder = holder[int(step)] if holder and step == "-1" else None
        else:
            holder = getattr(holder, step, None)
    return holder
