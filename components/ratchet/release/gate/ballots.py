"""Follow the answers and votes of one canary: tallies as they stand, and the strata that each test reads.

A look costs as much as there is new. A test considers each answer once, in the order in which answers were served, when
its time for votes is over: events that land after that are in the tallies alone.
"""

from bisect import bisect_right, insort
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from math import inf
from typing import Literal

from ratchet.release.gate.design import Arm, CanaryDesign, Place
from ratchet.release.gate.strata import LANDING_S, Stratum, new_strata
from ratchet.release.gate.votes import CountedVote, PersonalVote, ServedAnswer, Vote, personal_vote

TestName = Literal["harm", "non_inferiority"]
TESTS: tuple[TestName, ...] = ("harm", "non_inferiority")
BEFORE_ALL: Place = (-inf, "")


@dataclass
class _Reader:
    """How far one test has read."""

    until: Place = BEFORE_ALL
    """The last answer that was considered."""
    voters: set[str] = field(default_factory=set)
    waiting: list[CountedVote] = field(default_factory=list)
    """Votes whose stratum is not full."""


class Ballots:
    """The answers and votes of one canary so far."""

    def __init__(self) -> None:
        self.standing: Counter[tuple[int, Arm, bool]] = Counter()
        """Votes that count as they stand now, by span, arm and direction."""
        self.excluded: Counter[str] = Counter()
        """Votes that do not, by reason."""
        self.served: Counter[tuple[int, Arm]] = Counter()
        """Answers that began and ended within a span, by span and arm."""
        self._answers: dict[str, ServedAnswer] = {}
        self._votes: dict[str, Vote] = {}
        self._votes_of: defaultdict[str, set[str]] = defaultdict(set)
        self._voters_on: defaultdict[str, set[str]] = defaultdict(set)
        self._people: dict[str, PersonalVote] = {}
        self._voted_on: list[Place] = []  # answers with votes, in the order served
        self._unplaced: list[ServedAnswer] = []  # ended after the route was last seen
        self._readers: dict[TestName, _Reader] = {test: _Reader() for test in TESTS}

    def take(self, run: CanaryDesign, served: Iterable[ServedAnswer], votes: Iterable[Vote]) -> None:
        """Take in new events, in any order. Of several with one id the first by time counts."""
        changed = {vote.subject_id for vote in self._new_votes(votes)}
        seen_until, unplaced = run.spans[-1].end, []
        for answer in [*self._unplaced, *self._new_answers(served)]:
            span, arm = run.span_of(answer.started_at, answer.served_at), run.arm_of(answer.digest)
            if answer.served_at > seen_until:
                unplaced.append(answer)
            elif span is not None and arm is not None and answer.assigned_at is None:  # else the route chose nothing
                self.served[span, arm] += 1
            if answer.interaction_id in self._voters_on:
                changed |= self._voters_on[answer.interaction_id]
        self._unplaced = unplaced
        for subject in changed:
            self._count(run, subject)

    def read(self, test: TestName, run: CanaryDesign, after: Place, now: float) -> list[Stratum]:
        """Return the strata after the place `after` that `test` can read at `now` (Unix seconds)."""
        horizon_s = run.harm_horizon_s if test == "harm" else run.promotion_horizon_s
        until = min(now - horizon_s - LANDING_S, run.spans[-1].end)
        reader = self._readers[test]
        first = bisect_right(self._voted_on, reader.until)
        last = bisect_right(self._voted_on, (until, "\U0010ffff"))
        for place in self._voted_on[first:last]:
            reader.until = place
            for subject in sorted(self._voters_on[place[1]] - reader.voters):
                vote = self._vote_on(run, subject, place[1], horizon_s)
                if vote.is_cast:
                    reader.voters.add(subject)
                if vote.counted and 0 < run.spans[vote.counted.span].weight < 100:  # else one arm serves alone
                    reader.waiting.append(vote.counted)
        reader.waiting = [vote for vote in reader.waiting if vote.place > after]
        return new_strata(run, reader.waiting, until)

    def _new_votes(self, votes: Iterable[Vote]) -> Iterator[Vote]:
        for vote in votes:
            same = self._votes.get(vote.feedback_id)
            if same is not None and (same.created_at, repr(same)) <= (vote.created_at, repr(vote)):
                continue
            self._votes[vote.feedback_id] = vote
            self._votes_of[vote.subject_id].add(vote.feedback_id)
            if not self._voters_on[vote.interaction_id] and (answer := self._answers.get(vote.interaction_id)):
                insort(self._voted_on, answer.place)
            self._voters_on[vote.interaction_id].add(vote.subject_id)
            yield vote

    def _new_answers(self, served: Iterable[ServedAnswer]) -> Iterator[ServedAnswer]:
        for answer in sorted(served, key=lambda answer: (answer.served_at, answer.digest)):
            if answer.interaction_id not in self._answers:
                self._answers[answer.interaction_id] = answer
                if answer.interaction_id in self._voters_on:
                    insort(self._voted_on, answer.place)
                yield answer

    def _count(self, run: CanaryDesign, subject: str) -> None:
        """Count a person's votes as they stand now."""
        before = self._people.get(subject)
        votes = [self._votes[name] for name in self._votes_of[subject]]
        now = self._people[subject] = personal_vote(run, self._answers, votes, inf)
        for person, sign in ((before, -1), (now, 1)):
            if person is not None:
                for reason, num in person.excluded.items():
                    self.excluded[reason] += sign * num
                if vote := person.counted:
                    self.standing[vote.span, vote.arm, vote.is_up] += sign

    def _vote_on(self, run: CanaryDesign, subject: str, interaction: str, horizon_s: float) -> PersonalVote:
        votes = (self._votes[name] for name in self._votes_of[subject])
        return personal_vote(
            run, self._answers, (vote for vote in votes if vote.interaction_id == interaction), horizon_s
        )
