"""Cache a model's results by model and evaluation set, in the lake.

The champion was a candidate once and the base model is always compared, so both are mostly found.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ratchet.digest import canonical_json, digest_json
from ratchet.evaluation.eval_set import EvalSet
from ratchet.evaluation.scoring import Advance, Answers, Models, answers, log_probs
from ratchet.store import Store

VERSION = 2  # raised when the same model would give something else; 1 scored padded rows, which rounded otherwise


@dataclass(frozen=True)
class AnswerCache:
    """The cached results of models on one evaluation set; `conditions` is what else the results depend on."""

    store: Store
    models: Models
    eval_set: EvalSet
    max_new_tokens: int
    conditions: Mapping[str, Any]
    advance: Advance

    def answers_of(self, name: str | None, digest: str, *, with_answers: bool = True) -> Answers:
        """Return the results of the adapter `name` (None: the base model) with this digest, computed now or cached."""
        rows = [[row.prompt, *row.completions] for row in self.eval_set.rows]
        sums = self._cached(
            digest,
            {"rows": rows},
            len(rows),
            lambda: [row.tolist() for row in log_probs(self.models, name, self.eval_set.rows, self.advance)],
        )
        if not with_answers:
            return Answers(sums, [])
        asked = [list(map(dict, messages)) for messages in self.eval_set.asked]
        questions = {"asked": asked, "max_new_tokens": self.max_new_tokens}
        return Answers(sums, self._cached(digest, questions, len(asked), lambda: self._answers(name)))

    def _answers(self, name: str | None) -> list[str]:
        written = answers(self.models, name, self.eval_set.asked, self.max_new_tokens)
        self.advance(len(written))
        return written

    def _cached(self, digest: str, questions: Mapping[str, Any], amount: int, compute: Callable[[], Any]) -> Any:
        key = digest_json({"version": VERSION, "model": digest, **questions, **self.conditions})[:32]
        uri = f"eval_answers/{key}.json"
        if self.store.exists(uri):
            self.advance(amount)
            return json.loads(self.store.read(uri))
        result = compute()
        self.store.create_if_absent(uri, canonical_json(result))
        return result
