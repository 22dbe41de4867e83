"""Choose the votes that count in a canary: the standing vote of each person, on the first answer that they voted on.

Whose answer it was is the adapter digest that served it, not what the voter or the route says. Of several votes of a
person on one answer the last counts, unless it was taken back, as in the datasets (`ratchet.datasets.eligibility`). A
vote counts if it comes within the test's horizon after its answer.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ratchet.adapter_ref import AdapterDigest
from ratchet.events import Feedback, Interaction
from ratchet.release.gate.design import Arm, CanaryDesign, Place

EXCLUDED = (
    "interaction_unknown", "served_outside_run", "weight_changing", "other_adapter", "late", "superseded", "retracted",
    "neutral", "repeat_vote",
)  # fmt: skip
LOWEST_UP, HIGHEST_DOWN = 4, 2  # ratings of 4 and 5 are up, 1 and 2 down; 3 is no vote


@dataclass(frozen=True, kw_only=True)
class ServedAnswer:
    """The fields of one served answer that the evidence depends on."""

    interaction_id: str
    digest: AdapterDigest
    served_at: float
    latency_s: float = 0.0
    tenant: str = "default"
    assigned_at: float | None = None
    """When the route chose the arm, if that was for an earlier turn of the conversation."""

    @property
    def started_at(self) -> float:
        """When the route chose the arm."""
        return self.served_at - self.latency_s if self.assigned_at is None else self.assigned_at

    @property
    def place(self) -> Place:
        """Where it is in the order of answers."""
        return self.served_at, self.interaction_id

    @classmethod
    def of(cls, event: Interaction) -> "ServedAnswer":
        return cls(
            interaction_id=event.interaction_id,
            digest=AdapterDigest(event.adapter_digest),
            served_at=event.served_at,
            latency_s=event.latency_ms / 1000,
            tenant=event.tenant,
            assigned_at=event.assigned_at,
        )


@dataclass(frozen=True, kw_only=True)
class Vote:
    """One explicit human judgement, or its withdrawal."""

    feedback_id: str
    interaction_id: str
    subject_id: str
    is_up: bool | None
    """None: neither up nor down."""
    created_at: float
    signal: str = "thumb"
    """Its kind and score: a later vote of the same signal supersedes an earlier one."""
    supersedes_id: str | None = None
    is_retracted: bool = False

    @classmethod
    def of(cls, event: Feedback) -> "Vote | None":
        """Return the vote in this feedback; None if it neither is one nor replaces one, or is not from a person."""
        if event.source != "human" or (event.kind not in ("thumb", "rating") and event.supersedes_id is None):
            return None
        return cls(
            feedback_id=event.feedback_id,
            interaction_id=event.interaction_id,
            subject_id=event.subject_id,
            is_up=_is_up(event),
            created_at=event.created_at,
            signal=f"{event.kind} {event.score_name or ''}",
            supersedes_id=event.supersedes_id,
            is_retracted=event.is_retracted,
        )


def _is_up(event: Feedback) -> bool | None:
    if not isinstance(event.value, float):
        return None
    if event.kind == "thumb" and event.value in (1, -1):
        return event.value == 1
    if event.kind == "rating" and (event.value >= LOWEST_UP or event.value <= HIGHEST_DOWN):
        return event.value >= LOWEST_UP
    return None


@dataclass(frozen=True)
class CountedVote:
    """A vote that counts: when its answer was served, in which span, by which arm; its direction and tenant."""

    served_at: float
    interaction_id: str
    span: int
    arm: Arm
    is_up: bool
    tenant: str = "default"

    @property
    def place(self) -> Place:
        return self.served_at, self.interaction_id


class PersonalVote(NamedTuple):
    """One person's vote in a canary, if it counts, and how many of their votes do not, by reason."""

    counted: CountedVote | None
    excluded: Counter[str]
    is_cast: bool = True
    """Whether there was a vote in time, though it may have been taken back since."""


def personal_vote(
    run: CanaryDesign, answers: Mapping[str, ServedAnswer], votes: Iterable[Vote], horizon_s: float
) -> PersonalVote:
    """Return what counts of one person's votes if each answer has `horizon_s` seconds for votes."""
    excluded = Counter[str]()
    by_answer: dict[str, list[Vote]] = defaultdict(list)
    for vote in sorted(votes, key=lambda vote: (vote.created_at, vote.feedback_id)):
        if reason := _fault(run, answers.get(vote.interaction_id), vote, horizon_s):
            excluded[reason] += 1
        else:
            by_answer[vote.interaction_id].append(vote)
    if not by_answer:
        return PersonalVote(None, excluded, is_cast=False)
    first, *others = sorted((answers[name] for name in by_answer), key=lambda answer: answer.place)
    excluded["repeat_vote"] += sum(len(by_answer[answer.interaction_id]) for answer in others)
    is_up = _standing(by_answer[first.interaction_id], excluded)
    return PersonalVote(None if is_up is None else _counted(run, first, is_up), excluded)


def _fault(run: CanaryDesign, answer: ServedAnswer | None, vote: Vote, horizon_s: float) -> str | None:
    if answer is None:
        return "interaction_unknown"
    if answer.started_at < run.start:
        return "served_outside_run"
    if run.span_of(answer.started_at, answer.served_at) is None:
        return "weight_changing"
    if run.arm_of(answer.digest) is None:
        return "other_adapter"
    return "late" if vote.created_at > answer.served_at + horizon_s else None


def _standing(votes: Sequence[Vote], excluded: Counter[str]) -> bool | None:
    """Return the direction of a person's votes on one answer, given in order of time; None if none stands."""
    taken_back = {vote.supersedes_id: vote.is_retracted for vote in votes if vote.supersedes_id}
    last = {vote.signal: vote for vote in votes}
    standing = []
    for vote in votes:
        if vote.feedback_id in taken_back:
            excluded["retracted" if taken_back[vote.feedback_id] else "superseded"] += 1
        elif last[vote.signal].is_retracted:
            excluded["retracted"] += 1
        elif vote is not last[vote.signal]:
            excluded["superseded"] += 1
        elif vote.is_up is None:
            excluded["neutral"] += 1
        else:
            standing.append(vote.is_up)
    excluded["repeat_vote"] += max(0, len(standing) - 1)  # a thumb and a rating: the first signal counts
    return standing[0] if standing else None


def _counted(run: CanaryDesign, answer: ServedAnswer, is_up: bool) -> CountedVote:
    span = run.span_of(answer.started_at, answer.served_at)
    arm = run.arm_of(answer.digest)
    assert span is not None and arm is not None, "votes on other answers have a fault"
    return CountedVote(answer.served_at, answer.interaction_id, span, arm, is_up, answer.tenant)
