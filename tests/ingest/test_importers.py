import base64
import json
from pathlib import Path

import pytest

from ratchet.errors import UserError
from ratchet.events import Feedback, Interaction
from ratchet.ingest.importers import Terms, import_files
from ratchet.ingest.importers.scores import parse_rules
from ratchet.ingest.landing import landed, lines
from ratchet.manifest import Flow
from ratchet.store import Store, open_store

PAIR = {
    "idx": 0, "cmp_key": "opt-7b_llama-7b", "instruction": "Add.", "input": "1 + 1", "response1": "2",
    "response2": "3", "annotator1": 1, "annotator2": 2, "annotator3": 0,
}  # fmt: skip


def reply(name: str, rank: int | None, *replies: dict, role: str = "assistant") -> dict:
    return {"message_id": name, "text": f"text of {name}", "role": role, "rank": rank, "replies": list(replies)}


def tree(*replies: dict) -> dict:
    return {"message_tree_id": "root", "prompt": reply("root", None, *replies, role="prompter")}


def votes(lake: Store) -> list[Feedback]:
    return [Feedback.model_validate_json(line) for key in landed(lake, "feedback") for _, line in lines(lake, key)]


def served(lake: Store) -> dict[str, Interaction]:
    events = [
        Interaction.model_validate_json(line) for key in landed(lake, "interaction") for _, line in lines(lake, key)
    ]
    assert len({event.interaction_id for event in events}) == len(events)
    return {event.interaction_id: event for event in events}


def refused(lake: Store) -> list[dict]:
    return [json.loads(line) for key in lake.list("quarantine") for line in lake.read(key).splitlines()]


def run(name: str, lake: Store, *files: Path, traces: tuple[Path, ...] = (), scores: tuple[str, ...] = ()) -> Flow:
    """The flow of an import's feedback."""
    terms = Terms(scores=parse_rules(scores))
    return import_files(lake, name, files, traces, terms).flows["feedback"]


def write(path: Path, *records: bytes | dict) -> Path:
    path.write_bytes(b",\n".join(r if isinstance(r, bytes) else json.dumps(r).encode() for r in records))
    return path


def test_each_annotator_is_a_subject_who_prefers(lake: Store, tmp_path: Path):
    flow = run("pandalm", lake, write(tmp_path / "p.json", b"[", PAIR, b"]"))
    assert (flow.rows_in, flow.rows_out) == (3, 3)
    answers = served(lake)
    choices = {
        vote.subject_id: (answers[vote.interaction_id].response, answers[str(vote.value)].response, vote.is_tie)
        for vote in votes(lake)
    }
    assert choices == {
        "annotator1": ("2", "3", False),
        "annotator2": ("3", "2", False),
        "annotator3": ("2", "3", True),
    }
    assert {(event.base_model, event.messages[0].content) for event in answers.values()} == {
        ("opt-7b", "Add.\n\n1 + 1"),
        ("llama-7b", "Add.\n\n1 + 1"),
    }


def test_answers_to_one_prompt_share_a_conversation_and_an_answer_is_one(lake: Store, tmp_path: Path):
    other = PAIR | {"cmp_key": "opt-7b_pythia-6.9b", "response2": "4"}
    run("pandalm", lake, write(tmp_path / "p.json", b"[", PAIR, other, b"]"))
    answers = served(lake)
    assert sorted(event.response for event in answers.values()) == ["2", "3", "4"]
    assert len({event.conversation_id for event in answers.values()}) == 1


def test_a_record_without_text_is_dropped_with_its_votes_and_kept(lake: Store, tmp_path: Path):
    flow = run("pandalm", lake, write(tmp_path / "p.json", b"[", PAIR | {"response1": True}, PAIR, b"]"))
    assert (flow.rows_in, flow.rows_out, flow.drops) == (6, 3, {"unusable": 3})
    assert [record["why"] for record in refused(lake)] == ["unusable: response1: Input should be a valid string"]


def test_broken_records_do_not_stop_the_others(lake: Store, tmp_path: Path):
    whole = json.dumps(PAIR | {"input": "2 + 2"}).encode()
    broken = [b'{"idx": 7, "cmp_key": "cut sho', whole.replace(b"2 + 2", b"\xff\xfe")]
    path = write(tmp_path / "p.json", b"[", broken[0], PAIR, broken[1], whole, b"]")
    flow = run("pandalm", lake, path)
    assert (flow.rows_out, flow.drops) == (6, {"unreadable": 2})
    for record, expected in zip(refused(lake), broken, strict=True):
        data = base64.b64decode(record["bytes"])
        assert data.startswith(expected)
        assert path.read_bytes()[record["offset"] :].startswith(data)


def test_ranks_become_one_preference_for_each_pair_of_siblings(lake: Store, tmp_path: Path):
    again = reply("again", None, reply("b2", 1), reply("a2", 0), reply("unranked", None), role="prompter")
    path = write(tmp_path / "o.jsonl", tree(reply("c", 2), reply("a", 0, again), reply("b", 1)))
    flow = run("oasst", lake, path)
    assert (flow.rows_in, flow.rows_out) == (4, 4)
    answers = served(lake)
    pairs = {
        (answers[vote.interaction_id].response[-2:], answers[str(vote.value)].response[-2:]) for vote in votes(lake)
    }
    assert pairs == {(" a", " b"), (" a", " c"), (" b", " c"), ("a2", "b2")}
    deep = next(event for event in answers.values() if event.response == "text of a2")
    assert [(m.role, m.content[-5:]) for m in deep.messages] == [
        ("user", " root"),
        ("assistant", " of a"),
        ("user", "again"),
    ]
    assert len({event.conversation_id for event in answers.values()}) == 1


def test_equal_ranks_are_a_tie(lake: Store, tmp_path: Path):
    run("oasst", lake, write(tmp_path / "o.jsonl", tree(reply("a", 0), reply("b", 0))))
    assert [vote.is_tie for vote in votes(lake)] == [True]


def test_a_broken_tree_does_not_stop_the_others(lake: Store, tmp_path: Path):
    good = json.dumps(tree(reply("a", 0), reply("b", 1))).encode()
    path = tmp_path / "o.jsonl"
    path.write_bytes(good[:50] + b"\n\n" + good.replace(b"of a", b"\xff\xff") + b"\n" + good + b"\n")
    flow = run("oasst", lake, path)
    assert (flow.rows_in, flow.rows_out, flow.drops) == (3, 1, {"unreadable": 2})
    assert [record["offset"] for record in refused(lake)] == [0, 52]


@pytest.mark.parametrize(
    "data", [b"", b"\n \n", b"[]", b'{"data": [], "meta": {}}'], ids=["empty", "blank", "array", "page"]
)
def test_a_file_without_records_is_refused(lake: Store, tmp_path: Path, data: bytes):
    for name in ("oasst", "langfuse"):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(UserError, match=name):
            run(name, lake, tmp_path / name)


@pytest.mark.parametrize(
    ("name", "file", "rows", "drops"),
    [("pandalm", "pandalm-testset-v1.json", 2979, {"unusable": 18}), ("oasst", "oasst-en-100-trees.jsonl", 754, {})],
)
def test_real_files_land_the_same_bytes_everywhere_and_once(
    shared_data: Path, tmp_path: Path, name: str, file: str, rows: int, drops: dict
):
    keys = []
    for place in ("one", "two", "two"):
        lake = open_store(tmp_path / place)
        flow = run(name, lake, shared_data / file)
        assert (flow.rows_out, flow.drops) == (rows, drops)
        keys.append([(key, lake.read(key)) for key in lake.list("events")])
    assert keys[0] == keys[1] == keys[2]
    times = [vote.created_at for vote in votes(lake)]
    assert times == sorted(times)
