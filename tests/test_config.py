from pathlib import Path

import pytest

from ratchet.config import Config, load_config
from ratchet.errors import UserError


@pytest.fixture
def write(tmp_path: Path):
    def write(text: str) -> Path:
        path = tmp_path / "ratchet.yaml"
        path.write_text(text)
        return path

    return write


def test_empty_file_is_all_defaults(write):
    assert load_config(write("")) == Config()


def test_settings_are_read(write):
    config = load_config(write("seed: 3\nrelease_adapter: {branch: trial}\n"))
    assert (config.seed, config.release_adapter.branch, config.gate) == (3, "trial", Config().gate)


def test_unknown_key_names_the_nearest_at_its_place(write):
    with pytest.raises(UserError, match=r"train_adapter\.lora\.alfa: no such key; did you mean 'alpha'"):
        load_config(write("train_adapter: {lora: {alfa: 4}}"))


def test_unknown_section_names_the_nearest(write):
    with pytest.raises(UserError, match="build_dataset: no such key; did you mean 'build_datasets'"):
        load_config(write("build_dataset: {}"))


def test_every_fault_is_named(write):
    with pytest.raises(UserError) as caught:
        load_config(write("seed: many\nvalidate_triplets: {max_bad_share: 2}\nfoo: 1\n"))
    message = str(caught.value)
    assert "seed = 'many'" in message
    assert "validate_triplets.max_bad_share = 2" in message
    assert "foo" in message


def test_missing_file_says_how_to_get_one(tmp_path: Path):
    with pytest.raises(UserError, match="ratchet profile local"):
        load_config(tmp_path / "absent.yaml")


@pytest.mark.parametrize("text", ["a: [", "\x00", "- 1\n- 2", "just words"])
def test_what_is_no_mapping_is_refused(write, text):
    with pytest.raises(UserError, match=r"ratchet\.yaml"):
        load_config(write(text))


def test_section_that_is_no_mapping_is_refused(write):
    with pytest.raises(UserError, match="train_adapter = 3"):
        load_config(write("train_adapter: 3"))
