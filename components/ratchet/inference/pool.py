"""The loaded models by name, and the rows that answer a request: what the model server does before and after HTTP."""

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cached_property
from inspect import signature
from pathlib import Path
from typing import Any

from jinja2 import TemplateError

from ratchet.base_model import load_base
from ratchet.config import Config
from ratchet.errors import UserError
from ratchet.http_limits import RequestRefused
from ratchet.inference.answer_text import AnswerText
from ratchet.inference.batching import GenerationRow, stop_tokens
from ratchet.inference.completions import Choice, Completion
from ratchet.inference.constraints import (
    Constraint,
    Vocabulary,
    call_grammar,
    json_grammar,
    schema_fault,
)
from ratchet.inference.engine import MAX_CELLS, Engine
from ratchet.inference.openai_api import DEFAULT_MAX_TOKENS, ChatRequest, invalid
from ratchet.inference.tool_calls import renders_tools

logger = logging.getLogger(__name__)

LOOK_S = 0.1  # between two looks whether the client of a whole answer has left


class Pool:
    """The loaded models by name, and the conversion of chats to rows and of rows to text."""

    def __init__(self, config: Config) -> None:
        self.base = config.base_model.model
        self.started_at = int(time.time())
        # In a thread that ends: OpenMP keeps helper threads for each thread that ever computed. With more of them than
        # cores it lets them sleep between operations, and every operation waits for one to wake up.
        with ThreadPoolExecutor(1) as loader:
            model, self.tokenizer = loader.submit(load_base, config.base_model).result()
        self.context = min(model.config.max_position_embeddings, MAX_CELLS)
        self.num_tokens: int = model.config.vocab_size
        self._stop_tokens = stop_tokens(model, self.tokenizer)
        self.engine = Engine(model, self._stop_tokens)
        self.slots: dict[str, str | None] = {self.base: None}
        self.folders: dict[str, str] = {}
        self._loading = asyncio.Lock()

    async def completion(self, request: ChatRequest) -> Completion:
        """Return what answers a request, not yet generated. Raises RequestRefused if it cannot be served."""
        prompt = self._prompt(request)
        room, asked = self.context - len(prompt), request.limit
        if room < (asked or 1):
            raise invalid(
                f"The model holds {self.context} tokens; the prompt has {len(prompt)} and max_tokens is {asked or 1}.",
                "messages",
                "context_length_exceeded",
            )
        max_tokens = asked or min(DEFAULT_MAX_TOKENS, room)
        if unknown := [token for token in request.logit_bias if not 0 <= token < self.num_tokens]:
            raise invalid(f"logit_bias: the model has {self.num_tokens} tokens, and no {unknown[0]}", "logit_bias")
        constraint = None
        if request.logprobs or request.must_call or request.answer_schema:
            # To read the vocabulary takes half a second, once; to compile a grammar up to one.
            try:
                constraint = await asyncio.to_thread(self._constraint, request)
            except ValueError as error:
                raise invalid(f"the schemas cannot be followed: {error}", "response_format") from None
        return Completion(
            request, [self._choice(request, prompt, constraint, index, max_tokens) for index in range(request.n)]
        )

    def _choice(
        self, request: ChatRequest, prompt: list[int], constraint: Constraint | None, index: int, max_tokens: int
    ) -> Choice:
        text = AnswerText(self.tokenizer.backend_tokenizer, request.stop)
        row = GenerationRow(
            prompt=prompt,
            max_tokens=max_tokens,
            adapter=self.slot(request.model),
            temperature=request.temperature,
            seed=secrets.randbits(63) if request.seed is None else request.seed + index,
            top_p=request.top_p,
            frequency_penalty=request.frequency_penalty,
            presence_penalty=request.presence_penalty,
            logit_bias=request.logit_bias,
            constraint=constraint and constraint.copy(),
            text=text,
            top_logprobs=request.top_logprobs if request.logprobs else None,
        )
        return Choice(index, request, row, text, lambda token: self.vocabulary.bytes_of(token))

    def slot(self, name: str) -> str | None:
        if name not in self.slots:
            message = f"The model `{name}` does not exist; there are {sorted(self.slots)}."
            raise RequestRefused(404, message, param="model", code="model_not_found")
        return self.slots[name]

    def _prompt(self, request: ChatRequest) -> list[int]:
        self.slot(request.model)
        tools = [tool.model_dump(exclude_unset=True) for tool in request.offered]
        ours = request.chat_template_kwargs.keys() & signature(self.tokenizer.apply_chat_template).parameters.keys()
        if ours:
            raise invalid(f"chat_template_kwargs: {min(ours)} is no variable of a template", "chat_template_kwargs")
        try:
            rendered = self.tokenizer.apply_chat_template(
                [message.for_template() for message in request.messages],
                tools=tools if tools and self.renders_tools else None,
                add_generation_prompt=request.add_generation_prompt and not request.continue_final_message,
                continue_final_message=request.continue_final_message,
                **request.chat_template_kwargs,
            )
        except (TemplateError, TypeError, ValueError) as error:
            raise invalid(f"the model's chat template refuses these messages: {error}", "messages") from None
        prompt: list[int] = rendered["input_ids"]
        return prompt

    def _constraint(self, request: ChatRequest) -> Constraint | None:
        tools, answer = {}, request.answer_schema
        if request.must_call or (answer and self.renders_tools):
            tools = {tool.function.name: tool.function.arguments for tool in request.offered}
        for param, schema in [*(("tools", schema) for schema in tools.values()), ("response_format", answer)]:
            if schema and (fault := schema_fault(schema)):
                raise invalid(f"{param}: the schema cannot be followed: {fault}", param)
        if tools:
            return self.vocabulary.constraint(call_grammar(tools, None if request.must_call else answer))
        return self.vocabulary.constraint(json_grammar(answer)) if answer else None

    @cached_property
    def vocabulary(self) -> Vocabulary:
        return Vocabulary(self.tokenizer, self.num_tokens, self._stop_tokens)

    @cached_property
    def renders_tools(self) -> bool:
        does = renders_tools(self.tokenizer)
        if not does:
            logger.warning("the chat template of %s knows no tools: it calls one only where it must", self.base)
        return does

    async def generate(self, rows: Sequence[GenerationRow], *, is_streamed: bool) -> AsyncGenerator[None, None]:
        """Generate the rows; yield after each step, or ten times a second where nobody reads along.

        Closing the generator early stops the generation.
        """
        stepped, loop = asyncio.Event(), asyncio.get_running_loop()

        def on_token() -> None:
            loop.call_soon_threadsafe(stepped.set)

        answers = [asyncio.wrap_future(self.engine.generate(row, on_token if is_streamed else None)) for row in rows]
        for answer in answers:
            answer.add_done_callback(lambda _: stepped.set())
        try:
            while not all(answer.done() for answer in answers):
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_S):
                        await stepped.wait()
                stepped.clear()
                yield
            await asyncio.gather(*answers)
        finally:
            for row, answer in zip(rows, answers, strict=True):
                if not answer.done():
                    self.engine.abort(row)

    async def load(self, name: str, path: str) -> None:
        async with self._loading:  # of two loads of one name, the second must see the first
            if name in self.slots:
                raise RequestRefused(400, f"The lora adapter '{name}' has already been loaded.")
            try:
                slot: str = await asyncio.wrap_future(self.engine.load(Path(path)))
            except UserError as error:
                raise RequestRefused(400, str(error)) from None
            self.slots[name], self.folders[name] = slot, path

    async def unload(self, name: str) -> None:
        async with self._loading:
            if name not in self.folders:
                raise RequestRefused(404, f"The lora adapter '{name}' cannot be found.")
            del self.folders[name]
            if slot := self.slots.pop(name):
                self.engine.retire(slot)

    @property
    def adapter_names(self) -> dict[str, str]:
        """The names of the loaded adapters by slot."""
        return {slot: name for name, slot in self.slots.items() if slot}

    def cards(self) -> Iterator[dict[str, Any]]:
        for name in self.slots:
            is_base = name == self.base
            yield {
                "id": name,
                "object": "model",
                "created": self.started_at,
                "owned_by": "ratchet",
                "root": self.base if is_base else self.folders.get(name),
                "parent": None if is_base else self.base,
            }
