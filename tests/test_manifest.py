import pytest
from pydantic import ValidationError

from ratchet.digest import canonical_json, digest_json, digest_tree
from ratchet.manifest import Artifact, Flow, Manifest, step_key


def manifest(**changes: object) -> Manifest:
    made = {
        "outputs": {"dataset": Artifact(uri="datasets/d1", digest="d1")},
        "step": "build_datasets",
        "key": "k",
        "inputs": {"validate_triplets": "m1"},
        "code_version": "0.1.0",
        "created_at": 1.0,
        "seconds": 2.0,
    }
    return Manifest.model_validate(made | changes)


def test_flow_must_account_for_every_row():
    assert Flow(rows_in=3, rows_out=1, drops={"duplicate": 2}).rows_out == 1
    with pytest.raises(ValidationError, match="3 rows in, but 1 out and 1 dropped"):
        Flow(rows_in=3, rows_out=1, drops={"duplicate": 1})


def test_identity_ignores_time_and_facts():
    assert manifest().digest == manifest(created_at=9.0, seconds=0.1, facts={"note": 1}, code_version="9").digest


def test_identity_follows_content_and_inputs():
    other = Artifact(uri="datasets/d1", digest="d2")
    assert manifest().digest != manifest(outputs={"dataset": other}).digest
    assert manifest().digest != manifest(inputs={"validate_triplets": "m2"}).digest


def test_identity_does_not_depend_on_where_the_output_lies():
    assert manifest().digest == manifest(outputs={"dataset": Artifact(uri="elsewhere", digest="d1")}).digest


def test_manifest_survives_its_file():
    assert Manifest.model_validate_json(manifest().model_dump_json()) == manifest()


def test_key_follows_settings_version_and_inputs():
    key = step_key("s", 1, {"a": 1, "b": 2}, {"x": "1"})
    assert key == step_key("s", 1, {"b": 2, "a": 1}, {"x": "1"})
    assert len({key, step_key("s", 2, {"a": 1, "b": 2}, {"x": "1"}), step_key("s", 1, {"a": 1}, {"x": "1"})}) == 3


def test_canonical_json_is_one_form_of_a_value():
    assert canonical_json({"b": [1, 2.5], "a": "é"}) == '{"a":"é","b":[1,2.5]}'.encode()
    assert digest_json({"a": 1, "b": 2}) == digest_json({"b": 2, "a": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json(float("nan"))


def test_tree_digest_sees_names_and_contents_only(tmp_path):
    for place in ("one", "two"):
        (tmp_path / place / "deep").mkdir(parents=True)
        (tmp_path / place / "deep" / "file").write_bytes(b"x")
    assert digest_tree(tmp_path / "one") == digest_tree(tmp_path / "two")
    (tmp_path / "two" / "deep" / "file").rename(tmp_path / "two" / "file")
    assert digest_tree(tmp_path / "one") != digest_tree(tmp_path / "two")
