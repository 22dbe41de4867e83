import polars as pl
import pytest
from deltalake import DeltaTable
from hypothesis import given, settings
from hypothesis import strategies as st

from ratchet.errors import UserError
from ratchet.lake.schema import TRIPLETS
from ratchet.store import Store, open_store
from ratchet.validation.slices import (
    TripletSetRef,
    collections_of,
    partition_to_disk,
    repeated_ids,
    slices,
)
from support.collected_lake import bring, manifest
from support.lake_tables import fingerprint_digest, read_triplets


def triplets(*ids: str, value: float = 1.0):
    return pl.DataFrame([{"triplet_id": name, "value_num": value} for name in ids], TRIPLETS.schema)


def test_an_artifact_is_found_after_more_was_collected(lake: Store):
    bring(lake, 1, triplets("b", "a"))
    digest = fingerprint_digest(triplets("a", "b"))
    bring(lake, 2, triplets())
    bring(lake, 3, triplets("c"))
    assert read_triplets(lake, digest, 2)["triplet_id"].to_list() == ["a", "b"]


def test_a_table_that_lost_rows_is_named(lake: Store):
    bring(lake, 1, triplets("a", "b"))
    uri, _ = lake.delta_uri(TRIPLETS.key)
    digest = fingerprint_digest(triplets("a", "b"))
    DeltaTable(uri).delete("triplet_id = 'a'")
    with pytest.raises(UserError, match="no longer holds the 2 rows"):
        read_triplets(lake, digest, 2)


@settings(max_examples=15, deadline=None)
@given(ids=st.lists(st.sampled_from("abcd"), max_size=12), part_rows=st.integers(1, 5))
def test_slices_are_all_rows_and_equal_ids_meet_in_one_or_are_named(tmp_path_factory, ids: list[str], part_rows: int):
    lake = open_store(tmp_path_factory.mktemp("lake"))
    brought = [triplets(*ids[::2]), triplets(*ids[1::2])]
    for number, some in enumerate(brought, start=1):
        bring(lake, number, some)
    made = manifest(brought).outputs["triplets"]
    named = TripletSetRef(made.digest, made.rows or 0)
    collections = collections_of(lake, named)
    wanted = slices(collections, part_rows)
    rows = partition_to_disk(lake, wanted, tmp_path_factory.mktemp("aside") / "slices")
    found = [rows.read(number)["triplet_id"].to_list() for number in range(len(wanted))]
    assert sorted(name for part in found for name in part) == sorted(ids)
    for number, some in enumerate(brought, start=1):
        parts = [set(part) for part, one in zip(found, wanted, strict=True) if one.collection.number == number]
        assert sum(map(len, parts)) == some["triplet_id"].n_unique()
    repeated = {name for name in ids if ids.count(name) > 1}
    assert repeated_ids(lake, named, collections) == {
        number: sorted(repeated & set(some["triplet_id"]))
        for number, some in enumerate(brought, start=1)
        if repeated & set(some["triplet_id"])
    }


def test_slices_are_even(lake: Store):
    rows = triplets(*(f"vote-{number}" for number in range(10_000)))
    bring(lake, 1, rows)
    wanted = slices(collections_of(lake, TripletSetRef(fingerprint_digest(rows), 10_000)), 2_500)
    aside = partition_to_disk(lake, wanted, lake.local("aside"))
    assert all(2_300 < aside.read(number).height < 2_700 for number in range(len(wanted)))
    assert aside.num_rows == 10_000


def test_rows_of_no_collection_are_not_overlooked(lake: Store):
    bring(lake, 2, triplets("a"))
    uri, _ = lake.delta_uri(TRIPLETS.key)
    stray = triplets("z").with_columns(collection=pl.lit(1))
    stray.write_delta(uri, mode="append")
    named = TripletSetRef(fingerprint_digest(triplets("a")), 1)
    with pytest.raises(UserError, match="no longer holds the 1 rows"):
        repeated_ids(lake, named, collections_of(lake, named))
