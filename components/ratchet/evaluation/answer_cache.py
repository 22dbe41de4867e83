"""Exams sat once: a champion that sat this exam as a candidate, and the base model, are found in the lake."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ratchet.digest import canonical_json, digest_json
from ratchet.evaluation.eval_set import EvalSet
from ratchet.evaluation.scoring import Advance, Answers, Models, answers, log_probs
from ratchet.store import Store

VERSION = 1  # raised when the same model would write something else


@dataclass(frozen=True)
class AnswerCache:
    """An exam to be sat, and what else the result depends on (`conditions`)."""

    store: Store
    models: Models
    eval_set: EvalSet
    max_new_tokens: int
    conditions: Mapping[str, Any]
    advance: Advance

    def answers_of(self, name: str | None, digest: str, *, with_answers: bool = True) -> Answers:
        """What the adapter `name` (None: the base model) of this content writes, now or when it last sat."""
        rows = [[row.prompt, *row.answers] for row in self.eval_set.rows]
        sums = self._once(digest, {"rows": rows}, len(rows), lambda: self._sums(name))
        if not with_answers:
            return Answers(sums, [])
        asked = [list(map(dict, messages)) for messages in self.eval_set.asked]
        questions = {"asked": asked, "max_new_tokens": self.max_new_tokens}
        return Answers(sums, self._once(digest, questions, len(asked), lambda: self._answers(name)))

    def _sums(self, name: str | None) -> list[list[float]]:
        return [row.tolist() for row in log_probs(self.models, name, self.eval_set.rows, self.advance)]

    def _answers(self, name: str | None) -> list[str]:
        said = answers(self.models, name, self.eval_set.asked, self.max_new_tokens)
        self.advance(len(said))
        return said

    def _once(self, digest: str, questions: Mapping[str, Any], amount: int, write: Callable[[], Any]) -> Any:
        key = digest_json({"version": VERSION, "model": digest, **questions, **self.conditions})[:32]
        uri = f"eval_answers/{key}.json"
        if self.store.exists(uri):
            self.advance(amount)
            return json.loads(self.store.read(uri))
        written = write()
        self.store.create_if_absent(uri, canonical_json(written))
        return written
