import polars as pl
import pytest
from deltalake import DeltaTable
from hypothesis import given, settings
from hypothesis import strategies as st

from ratchet.errors import UserError
from ratchet.lake import tables
from ratchet.lake.artifact import artifact_parts, read_artifact
from ratchet.lake.content import content_digest
from ratchet.lake.rows import TRIPLETS
from ratchet.store import Store, open_store


def triplets(*ids: str, value: float = 1.0):
    return pl.DataFrame([{"triplet_id": name, "value_num": value} for name in ids], TRIPLETS.schema)


def test_an_artifact_is_found_after_more_was_collected(lake: Store):
    tables.append(lake, TRIPLETS, [triplets("b", "a")], collection=1)
    digest = content_digest(triplets("a", "b"))
    tables.append(lake, TRIPLETS, [triplets()], collection=2)
    tables.append(lake, TRIPLETS, [triplets("c")], collection=3)
    assert read_artifact(lake, digest, 2)["triplet_id"].to_list() == ["a", "b"]


def test_a_table_that_lost_rows_is_named(lake: Store):
    tables.append(lake, TRIPLETS, [triplets("a", "b")], collection=1)
    uri, _ = lake.delta_uri(TRIPLETS.key)
    digest = content_digest(triplets("a", "b"))
    DeltaTable(uri).delete("triplet_id = 'a'")
    with pytest.raises(UserError, match="no longer holds the 2 rows"):
        read_artifact(lake, digest, 2)


@settings(max_examples=15, deadline=None)
@given(ids=st.lists(st.sampled_from("abcd"), max_size=12), part_rows=st.integers(1, 5))
def test_parts_are_all_rows_and_equal_ids_meet_in_one(tmp_path_factory, ids: list[str], part_rows: int):
    lake = open_store(tmp_path_factory.mktemp("lake"))
    for collection, some in enumerate((ids[::2], ids[1::2]), start=1):
        tables.append(lake, TRIPLETS, [triplets(*some)], collection)
    found = [
        part["triplet_id"].to_list()
        for part in artifact_parts(lake, content_digest(triplets(*ids)), len(ids), part_rows)
    ]
    assert [name for part in found for name in part] == sorted(ids)
    assert sum(len(set(part)) for part in found) == len(set(ids))
