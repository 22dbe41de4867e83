"""Whatever the bytes of a file: nothing but UserError comes out of an import, and every record is accounted for."""

import json
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratchet.errors import UserError
from ratchet.ingest.importers import IMPORTERS, Imported, Terms, import_files
from ratchet.ingest.importers.intake import DROPS
from ratchet.ingest.importers.records import records
from ratchet.ingest.importers.scores import parse_rules
from ratchet.ingest.landing import landed, lines
from ratchet.store import Store, open_store

SAMPLES = Path(__file__).parent / "importers/samples"
TERMS = Terms(scores=parse_rules(["thumb=thumb", "helpful=thumb", "quality=0..10", "verdict=fail/pass"]))
NAMES = sorted(IMPORTERS)


def imported(name: str, data: bytes, is_trace: bool) -> tuple[Imported, int] | None:
    """What an import of these bytes did, and how many events it landed; None if the file was refused whole."""
    with tempfile.TemporaryDirectory() as folder:
        file, store = Path(folder) / "file", open_store(Path(folder) / "lake")
        file.write_bytes(data)
        files, traces = ([], [file]) if is_trace else ([file], [])
        try:
            done = import_files(store, name, files, traces, TERMS)
        except UserError:
            return None
        return done, len(list(events(store)))


def events(store: Store) -> Iterator[dict[str, Any]]:
    for unit in ("interaction", "feedback"):
        for key in landed(store, unit):
            yield from (json.loads(line) for _, line in lines(store, key))


def check(name: str, data: bytes, is_trace: bool = False) -> None:
    if found := imported(name, data, is_trace):
        done, num_landed = found
        assert sum(flow.rows_out for flow in done.flows.values()) == num_landed
        assert {reason for flow in done.flows.values() for reason in flow.drops} <= set(DROPS)


@given(data=st.binary(max_size=200) | st.text('{}[]",:\\ \n01.eE-nutf').map(str.encode), name=st.sampled_from(NAMES))
def test_any_bytes(data: bytes, name: str):
    check(name, data)
    check(name, data, is_trace=True)


@pytest.mark.parametrize("path", sorted(SAMPLES.iterdir()), ids=lambda path: path.name)
def test_broken_samples(path: Path):
    """Bytes of real shape with some of them changed, cut out or doubled: far deeper than noise reaches."""
    name, _, trace = path.stem.partition("-")
    whole, chance = path.read_bytes(), random.Random(path.name)
    for _ in range(60):
        data = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            start = chance.randrange(len(data))
            end = min(len(data), start + chance.randint(0, 20))
            data[start:end] = chance.choice(
                [b"", b"null", b"[]", b"{}", b'"', b"1e999", b"\xff", b"\\ud800", data[start:end] * 2]
            )
        check(name, bytes(data), is_trace=bool(trace))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=60)
@given(data=st.data(), path=st.sampled_from(sorted(SAMPLES.glob("*.jsonl"))))
def test_samples_with_values_of_any_type(data: st.DataObject, path: Path):
    record = json.loads(data.draw(st.sampled_from([line for line in path.read_text().splitlines() if is_json(line)])))
    places = list(within(record))
    for _ in range(data.draw(st.integers(1, 3))):
        holder, key = data.draw(st.sampled_from(places))
        if key in holder if isinstance(holder, dict) else key < len(holder):
            holder[key] = data.draw(JSON)
    name, _, trace = path.stem.partition("-")
    check(name, json.dumps(record).encode(), is_trace=bool(trace))


def within(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every place in a JSON value, as what holds it and its key."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else []
    for key in keys:
        yield value, key
        yield from within(value[key])


def is_json(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


@given(data=st.binary(max_size=300))
def test_lines_lose_no_byte(data: bytes):
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "file"
        file.write_bytes(b"x" + data)  # no array and no page: lines
        found = list(records(file))
        assert all((b"x" + data)[one.offset :].startswith(one.data) for one in found)
        assert b"".join(one.data for one in found).split() == (b"x" + data).split()


@given(data=st.text('{}[]",:\\ \nab1', max_size=60))
def test_values_lose_nothing_but_separators(data: str):
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "file"
        file.write_text("[" + data)
        kept = b"".join(one.data for one in records(file))
        assert sorted(kept.translate(None, b"[], \n")) == sorted(data.encode().translate(None, b"[], \n"))


@pytest.mark.parametrize(
    "text",
    [
        '{"a": 1}\n{"b": 2}\n',
        '[{"a": 1}, {"b": 2}]',
        '{\n "a": 1\n}\n{\n "b": 2\n}\n',
        '{"data": [{"a": 1}], "meta": {"page": 1}}\n{"data": [{"b": 2}], "next_cursor": null}\n',
        '{\n "data": [\n  {"a": 1},\n  {"b": 2}\n ]\n}\n',
    ],
    ids=["lines", "array", "indented", "pages", "indented-page"],
)
def test_records_are_the_same_however_they_are_wrapped(tmp_path: Path, text: str):
    (tmp_path / "file").write_text(text)
    found = list(records(tmp_path / "file"))
    assert [json.loads(one.data) for one in found] == [{"a": 1}, {"b": 2}]
    assert all(text.encode()[one.offset :].startswith(one.data) for one in found)
