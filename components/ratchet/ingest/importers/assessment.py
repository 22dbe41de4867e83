"""Map an assessment (a tracing system's score, feedback, annotation or evaluation) to feedback events.

A correction stays one. A score becomes a thumb or a rating, with its comment, by the user's `--score` rule for its
name; without a rule it is dropped, not guessed. A comment alone is a comment.

The id is a hash of the system's own key and the content: an equal version is a duplicate, a changed one is later
feedback of the same subject on the same answer, which supersedes it.
"""

from dataclasses import dataclass, field
from typing import Any

from ratchet.events import Source
from ratchet.ingest.importers.chat import answer_of
from ratchet.ingest.importers.intake import Intake, Unmappable
from ratchet.ingest.importers.scores import Value, Verdict


@dataclass(frozen=True, kw_only=True)
class Assessment:
    """One assessment of one answer; `values` are the forms of its score (a number, a label).

    Values that are not boolean, number or text are ignored, and so is a comment that is not text.
    """

    key: str
    interaction_id: str
    name: str
    created_at: float
    source: Source
    by: str | None = None
    values: tuple[Any, ...] = ()
    comment: Any = None
    correction: Any = None
    source_fields: dict[str, Any] = field(default_factory=dict)

    def land(self, intake: Intake) -> None:
        """Add its feedback events. Raises Unmappable if it is empty, or if no rule covers its score."""
        values: list[Value] = [
            value for value in self.values if isinstance(value, bool | int | float | str) and value != ""
        ]
        if self.correction is not None:
            self._add(intake, "correction", answer_of(self.correction))
        if values:
            kind, value = self._apply_rule(intake, values)
            self._add(intake, kind, value)
        elif self.correction is None:
            if not isinstance(self.comment, str) or not self.comment.strip():
                raise Unmappable("says_nothing", "neither score nor comment nor correction")
            self._add(intake, "comment", self.comment)

    def _apply_rule(self, intake: Intake, values: list[Value]) -> Verdict:
        rule = intake.terms.scores.get(self.name)
        if rule is None:
            raise intake.lacks_rule(self.name)
        read = next((verdict for value in values if (verdict := rule.read(value)) is not None), None)
        if read is None:
            raise Unmappable("out_of_scale", f"the --score for {self.name} does not cover it")
        return read

    def _add(self, intake: Intake, kind: str, value: Any) -> None:
        comment = self.comment if kind != "comment" and isinstance(self.comment, str) else None
        intake.say(
            feedback_id=intake.digest("feedback", self.key, kind, str(value), str(self.created_at), comment),
            interaction_id=self.interaction_id,
            subject_id=intake.person(self.by) if self.by else intake.digest("anonymous", self.key),
            kind=kind,
            value=value,
            source=self.source,
            created_at=self.created_at,
            comment=comment,
            score_name=self.name,
            source_ref=self.key,
            source_fields=self.source_fields,
        )
