import polars as pl

from ratchet.lake.valid_triplets import scan_valid, valid_files, write_valid
from ratchet.store import Store


def put(lake: Store, key: str, **columns: list[object]) -> str:
    lake.local(key).parent.mkdir(parents=True, exist_ok=True)
    pl.DataFrame(columns).write_parquet(lake.local(key))
    return key


def test_files_are_named_in_order_wherever_they_lie(lake: Store):
    keys = [put(lake, f"parts/{name}/good.parquet", triplet_id=[name]) for name in ("b", "a")]
    uri = write_valid(lake, "d1", keys)
    assert valid_files(lake, uri) == [lake.local(key) for key in keys]
    assert scan_valid(lake, uri).collect()["triplet_id"].to_list() == ["b", "a"]


def test_the_first_to_name_the_rows_of_a_digest_is_believed(lake: Store):
    first, second = (put(lake, f"parts/{number}.parquet", triplet_id=["a"]) for number in (1, 2))
    assert write_valid(lake, "d1", [first]) == write_valid(lake, "d1", [second])
    assert valid_files(lake, "validated/d1") == [lake.local(first)]


def test_a_folder_of_files_is_read_as_it_is(lake: Store):
    for name in ("b", "a"):
        put(lake, f"validated/v1/{name}.parquet", triplet_id=[name])
    assert [file.name for file in valid_files(lake, "validated/v1")] == ["a.parquet", "b.parquet"]


def test_a_column_that_one_file_lacks_is_null_there(lake: Store):
    keys = [put(lake, "parts/1.parquet", triplet_id=["a"]), put(lake, "parts/2.parquet", triplet_id=["b"], tie=[True])]
    for order in (keys, keys[::-1]):
        uri = write_valid(lake, order[0].replace("/", "-"), order)
        found = scan_valid(lake, uri).sort("triplet_id").collect()
        assert found.to_dict(as_series=False) == {"triplet_id": ["a", "b"], "tie": [None, True]}
