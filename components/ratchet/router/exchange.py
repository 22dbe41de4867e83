"""One request with its answer, and the interactions that the lake holds of it: one for each choice."""

import time
from dataclasses import dataclass
from typing import Any

from ratchet.events import Interaction
from ratchet.router.answers import Answer
from ratchet.router.apis import Api
from ratchet.router.chat_request import ChatRequest
from ratchet.router.feedback import of_choice
from ratchet.router.pool_client import ServedModel
from ratchet.router.settings import BASE_NAME, RouterSettings
from ratchet.router.tokens import Ticket


@dataclass(kw_only=True)
class Exchange:
    """One request, the pool's reply, and the ticket of the answer."""

    api: Api
    request: ChatRequest
    served: ServedModel
    is_fallback: bool
    ticket: Ticket
    completion_id: str
    """The ticket, sealed: the answer's id as its client sees it."""
    started: float
    is_kept: bool = False
    """Whether an earlier turn chose the arm, not the route."""
    is_recorded: bool = False


def interactions(exchange: Exchange, answer: Answer, settings: RouterSettings) -> list[Interaction]:
    """Return what is recorded of an answer, served now."""
    return [_interaction(exchange, answer, number, settings) for number in range(len(answer.choices))]


def _interaction(exchange: Exchange, answer: Answer, number: int, settings: RouterSettings) -> Interaction:
    request, ticket, is_fallback = exchange.request, exchange.ticket, exchange.is_fallback
    choice, interaction_id = answer.choices[number], of_choice(ticket.interaction_id, number)
    # The route chooses an arm for a request, not for each of its choices.
    was_chosen_before = exchange.is_kept or number > 0
    kept: dict[str, Any] = {"assigned_at": ticket.assigned_at} if was_chosen_before else {}
    if len(answer.choices) > 1:
        kept["candidate_group_id"] = ticket.interaction_id
    if number == 0:  # the pool counts all choices together
        kept |= {"prompt_tokens": answer.prompt_tokens, "completion_tokens": answer.completion_tokens}
    return Interaction(
        interaction_id=interaction_id,
        conversation_id=request.conversation or interaction_id,
        subject_id=ticket.subject_id,
        tenant=ticket.tenant,
        messages=request.messages,
        response=choice.text,
        base_model=exchange.served.base_model,
        adapter_name=BASE_NAME if is_fallback else settings.adapter_name,
        adapter_version="0" if is_fallback else settings.adapter_version,
        adapter_digest=ticket.adapter_digest,
        arm=ticket.arm,
        params=request.params,
        latency_ms=round((time.monotonic() - exchange.started) * 1000, 1),
        finish_reason=choice.finish_reason,
        served_at=time.time(),
        consent_training=settings.consent_training,
        tools=request.tools,
        tool_calls=choice.tool_calls,
        refusal=choice.refusal,
        reasoning=choice.reasoning,
        task=request.task,
        completion_id=exchange.completion_id,
        **kept,
    )
