"""What holds for every format: consent, scores, versions, batches, Parquet. Golden files show what each lands."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ratchet.errors import UserError
from ratchet.events import Feedback
from ratchet.ingest.importers import IMPORTERS, Terms, import_files, intake
from ratchet.ingest.importers.scores import parse_rules
from ratchet.ingest.landing import landed, lines
from ratchet.store import Store, open_store

SAMPLES = Path(__file__).parent / "importers/samples"
THUMB = Terms(scores=parse_rules(["thumb=thumb"]))


def events(store: Store, unit: str) -> list[dict[str, Any]]:
    return [json.loads(line) for key in landed(store, unit) for _, line in lines(store, key)]


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def kto(number: int, **more: object) -> dict[str, object]:
    return {"prompt": f"What is {number}?", "completion": f"It is {number}.", "label": number % 2 == 0, **more}


def score(value: int, hour: int, **more: object) -> dict[str, object]:
    at = f"2026-03-01 {hour:02}:00:00.000000"
    row = {"id": "s1", "trace_id": "t1", "name": "thumb", "data_type": "BOOLEAN", "value": value, "source": "API"}
    return {**row, "timestamp": "2026-03-01 00:00:00.000000", "updated_at": at, **more}


def test_who_imports_says_whether_the_texts_may_train(lake: Store, tmp_path: Path):
    file = write(tmp_path / "k.jsonl", kto(1))
    import_files(lake, "kto", [file])
    assert {event["consent_training"] for event in events(lake, "interaction")} == {"granted"}
    other = open_store(tmp_path / "other")
    import_files(other, "kto", [file], terms=Terms(consent="unknown"))
    assert {event["consent_training"] for event in events(other, "interaction")} == {"unknown"}


def test_who_imports_may_know_who_judged(lake: Store, tmp_path: Path):
    import_files(lake, "kto", [write(tmp_path / "k.jsonl", kto(1))], terms=Terms(source="model"))
    assert [event["source"] for event in events(lake, "feedback")] == ["model"]


def test_a_score_without_a_rule_is_dropped_and_named(lake: Store, tmp_path: Path):
    done = import_files(lake, "langfuse", [write(tmp_path / "s.jsonl", score(1, 1), score(0, 2, name="odd"))])
    assert done.flows["feedback"].drops == {"scale_unknown": 2}
    assert done.scores_without_rule == {"thumb": 1, "odd": 1}


def test_unknown_columns_are_kept(lake: Store, tmp_path: Path):
    import_files(lake, "kto", [write(tmp_path / "k.jsonl", kto(1, rater="ann", kind="x", nested={"a": [1]}))])
    [vote] = events(lake, "feedback")
    assert vote["source_fields"] == {"rater": "ann", "kind": "x", "nested": {"a": [1]}}


def test_the_same_version_of_a_score_counts_once(lake: Store, tmp_path: Path):
    done = import_files(lake, "langfuse", [write(tmp_path / "s.jsonl", score(1, 1), score(1, 1))], terms=THUMB)
    assert (done.flows["feedback"].rows_out, done.flows["feedback"].drops) == (1, {"duplicate": 1})


def test_a_changed_score_takes_the_place_of_the_one_before(lake: Store, tmp_path: Path):
    import_files(lake, "langfuse", [write(tmp_path / "s.jsonl", score(1, 1), score(0, 3), score(1, 2))], terms=THUMB)
    votes = [Feedback.model_validate(event) for event in events(lake, "feedback")]
    assert len({vote.subject_id for vote in votes}) == 1
    assert max(votes, key=lambda vote: vote.created_at).value == -1


def test_batches_land_the_same_events_in_flat_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = write(tmp_path / "k.jsonl", *(kto(number % 90) for number in range(100)))
    whole, parts = open_store(tmp_path / "whole"), open_store(tmp_path / "parts")
    first = import_files(whole, "kto", [file])
    monkeypatch.setattr(intake, "BATCH_BYTES", 500)
    assert import_files(parts, "kto", [file]) == first
    assert first.flows["feedback"].drops == {"duplicate": 10}
    assert len(landed(parts, "feedback")) > len(landed(whole, "feedback"))
    for unit in ("interaction", "feedback"):
        assert sorted(map(str, events(whole, unit))) == sorted(map(str, events(parts, unit)))
    before = list(parts.list("events"))
    import_files(parts, "kto", [file])
    assert list(parts.list("events")) == before


def test_parquet_lands_what_json_lines_land(tmp_path: Path):
    stores = {}
    for name in ("kto", "preference"):
        chat = [[{"role": "user", "content": "Hi"}], [{"role": "assistant", "content": "Hello"}]]
        rows = {
            "kto": [{"prompt": chat[0], "completion": chat[1], "label": True}],
            "preference": [{"prompt": "Hi", "chosen": "Hello", "rejected": "No", "at": 1.5}],
        }[name]
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / f"{name}.parquet")
        for file in (write(tmp_path / f"{name}.jsonl", *rows), tmp_path / f"{name}.parquet"):
            store = stores[file.name] = open_store(tmp_path / f"lake-{file.name}")
            import_files(store, name, [file])
        keys = [[(key, store.read(key)) for key in store.list("events")] for store in stores.values()][-2:]
        assert keys[0] == keys[1]
        assert keys[0]


def test_a_row_of_parquet_is_kept_by_its_number(lake: Store, tmp_path: Path):
    table = pa.table({"prompt": ["a", None, "b"], "completion": ["x", "y", "z"], "label": [True, True, False]})
    pq.write_table(table, tmp_path / "k.parquet")
    done = import_files(lake, "kto", [tmp_path / "k.parquet"])
    assert (done.flows["feedback"].rows_out, done.flows["feedback"].drops) == (2, {"unusable": 1})
    [record] = [json.loads(line) for key in done.quarantined for line in lake.read(key).splitlines()]
    assert (record["file"], record["offset"]) == ("k.parquet", 1)


def test_broken_parquet_says_how_much_was_read(lake: Store, tmp_path: Path):
    (tmp_path / "k.parquet").write_bytes(b"PAR1 and then nothing of use PAR1")
    with pytest.raises(UserError, match="0 rows were read"):
        import_files(lake, "kto", [tmp_path / "k.parquet"])


def test_a_packed_file_is_named_as_such(lake: Store, tmp_path: Path):
    (tmp_path / "k.jsonl.gz").write_bytes(b"\x1f\x8b\x08\x00")
    with pytest.raises(UserError, match="gunzip"):
        import_files(lake, "kto", [tmp_path / "k.jsonl.gz"])


@pytest.mark.parametrize("name", sorted(name for name, one in IMPORTERS.items() if one.read_trace is None))
def test_traces_are_refused_where_texts_do_not_live_apart(lake: Store, name: str):
    [file] = SAMPLES.glob(f"{name}.*")
    with pytest.raises(UserError, match="leave out --traces"):
        import_files(lake, name, [file], [file])
