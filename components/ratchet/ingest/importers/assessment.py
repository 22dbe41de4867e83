"""An assessment: what the tracing systems call a score, a feedback, an annotation or an evaluation; as our feedback.

A correction is one as it stands. A score becomes a thumb or a rating by the importer's rule for its name, its comment
beside it; without a rule it is dropped, never guessed at. A comment alone is a comment.

The id is made of the system's own key and of what was said: the same version twice is a duplicate, a changed one is
a later word of the same subject on the same answer, which supersedes.
"""

from dataclasses import dataclass, field
from typing import Any

from ratchet.events import Source
from ratchet.ingest.importers.chat import answer_of
from ratchet.ingest.importers.intake import Intake, Unmappable
from ratchet.ingest.importers.scores import Value, Verdict


@dataclass(frozen=True, kw_only=True)
class Assessment:
    """One assessment of one answer; `values` are the forms that a score was given in (a number, its label).

    What is no boolean, number or text among them, and a comment that is no text, says nothing.
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
        """Say it. Raises Unmappable if it says nothing, or nothing that its rule covers."""
        values: list[Value] = [
            value for value in self.values if isinstance(value, bool | int | float | str) and value != ""
        ]
        if self.correction is not None:
            self._say(intake, "correction", answer_of(self.correction))
        if values:
            kind, value = self._judge(intake, values)
            self._say(intake, kind, value)
        elif self.correction is None:
            if not isinstance(self.comment, str) or not self.comment.strip():
                raise Unmappable("says_nothing", "neither score nor comment nor correction")
            self._say(intake, "comment", self.comment)

    def _judge(self, intake: Intake, values: list[Value]) -> Verdict:
        rule = intake.terms.scores.get(self.name)
        if rule is None:
            raise intake.lacks_rule(self.name)
        read = next((verdict for value in values if (verdict := rule.read(value)) is not None), None)
        if read is None:
            raise Unmappable("out_of_scale", f"the --score for {self.name} does not cover it")
        return read

    def _say(self, intake: Intake, kind: str, value: Any) -> None:
        beside = self.comment if kind != "comment" and isinstance(self.comment, str) else None
        intake.say(
            feedback_id=intake.digest("feedback", self.key, kind, str(value), str(self.created_at), beside),
            interaction_id=self.interaction_id,
            subject_id=intake.person(self.by) if self.by else intake.digest("anonymous", self.key),
            kind=kind,
            value=value,
            source=self.source,
            created_at=self.created_at,
            comment=beside,
            score_name=self.name,
            source_ref=self.key,
            source_fields=self.source_fields,
        )
