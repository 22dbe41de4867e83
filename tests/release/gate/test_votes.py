"""Of a person's votes on one answer, gate and datasets let the same ones stand: changed, taken back, sent twice."""

from hypothesis import given
from hypothesis import strategies as st

from ratchet.config import BuildDatasets
from ratchet.datasets.eligibility import assess_eligibility
from ratchet.datasets.interning import intern
from ratchet.events import Feedback
from ratchet.release.gate.votes import ServedAnswer, Vote, personal_vote
from support.gate_run import OLD, design
from support.triplet_factory import START_S, frame, triplet

RUN = design((0, 9e9, 20))
ANSWER = ServedAnswer(interaction_id="i", digest=OLD, served_at=START_S)


@st.composite
def votes(draw: st.DrawFn) -> list[dict]:
    """Thumbs of one person on one answer, a second apart: some take one back, some name the one that they replace."""
    made: list[dict] = []
    for number in range(draw(st.integers(1, 6))):
        before = [each["triplet_id"] for each in made]
        made.append(
            {
                "triplet_id": f"f{number}",
                "value_num": draw(st.sampled_from([1.0, -1.0])),
                "created_at": START_S + number,
                "is_retracted": draw(st.booleans()),
                "supersedes_id": draw(st.sampled_from([None, *before])),
            }
        )
    return made


@given(votes())
def test_gate_and_datasets_let_the_same_votes_stand(made: list[dict]) -> None:
    table = frame(*(triplet("ann", "Paris.", "thumb", **each) for each in made))
    keys = assess_eligibility(intern(table), BuildDatasets())
    names = table["triplet_id"].to_list()
    reasons = {names[row]: reason for row, reason in zip(keys["row"], keys["reason"], strict=True)}
    in_datasets = [name for name in names if reasons[name] is None]
    events = [
        Feedback(
            feedback_id=each["triplet_id"],
            interaction_id="i",
            subject_id="ann",
            kind="thumb",
            value=each["value_num"],
            created_at=each["created_at"],
            is_retracted=each["is_retracted"],
            supersedes_id=each["supersedes_id"],
        )
        for each in made
    ]
    found = personal_vote(RUN, {"i": ANSWER}, [vote for event in events if (vote := Vote.of(event))], 1e9)
    assert (found.counted is not None) == bool(in_datasets)
    if found.counted:
        (standing,) = in_datasets
        value = next(each["value_num"] for each in made if each["triplet_id"] == standing)
        assert found.counted.is_up == (value == 1)
