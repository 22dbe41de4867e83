from pathlib import Path

import pytest
import yaml

from ratchet.config import KEYS, RENAMED, Config, load_config
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
    with pytest.raises(UserError, match=r"lora\.alfa: no such key; did you mean 'train_adapter\.lora\.alpha'"):
        load_config(write("train_adapter: {lora: {alfa: 4}}"))


def test_unknown_section_names_the_nearest(write):
    with pytest.raises(UserError, match="build_dataset: no such key; did you mean 'build_datasets'"):
        load_config(write("build_dataset: {}"))


def test_key_that_lives_in_another_section_is_found_there(write):
    with pytest.raises(UserError, match=r"max_votes_per_day: no such key; did you mean 'build_datasets.max_votes"):
        load_config(write("max_votes_per_day: 3"))


def test_key_like_no_other_lists_the_known_ones(write):
    with pytest.raises(UserError, match=r"gate\.zzz: no such key; there are alpha, non_inferiority_margin, "):
        load_config(write("gate: {zzz: 1}"))


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_renamed_key_is_answered_with_its_new_name(write, old, new):
    section, _, name = old.rpartition(".")
    given = {name: 0.1}
    for part in reversed(section.split(".")):
        given = {part: given}
    with pytest.raises(UserError, match=rf"{old}: renamed to {new}$"):
        load_config(write(yaml.safe_dump(given)))
    assert new in KEYS


def test_wrong_choice_names_the_nearest(write):
    with pytest.raises(UserError, match=r"train_adapter\.device = 'cdua': .*; did you mean 'cuda'"):
        load_config(write("train_adapter: {device: cdua}"))


def test_check_over_several_keys_does_not_repeat_the_section(write):
    with pytest.raises(UserError, match=r"train_adapter: quantize: nf4 needs device: cuda"):
        load_config(write("train_adapter: {quantize: nf4}"))


def test_section_whose_keys_are_all_commented_out_has_its_defaults(write):
    assert load_config(write("gate:\ntrain_adapter:\n  lora:\n    # r: 8\n")) == Config()


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


@pytest.mark.parametrize(("timeout_s", "max_minutes"), [(86400, 1440), (600, 10), (60, 1440)])
def test_a_release_that_gives_up_before_the_gate_is_refused(tmp_path: Path, timeout_s: int, max_minutes: int) -> None:
    path = tmp_path / "ratchet.yaml"
    release = f"release_adapter: {{git_url: x.git, timeout_s: {timeout_s}}}\n"
    path.write_text(f"{release}gate: {{max_minutes: {max_minutes}}}\n")
    with pytest.raises(UserError, match=f"timeout_s = {timeout_s} ends the step before gate.max_minutes"):
        load_config(path)
    path.write_text(f"{release.replace('git_url: x.git, ', '')}gate: {{max_minutes: {max_minutes}}}\n")
    assert load_config(path).release_adapter.timeout_s == timeout_s  # nothing is released


@pytest.mark.parametrize(
    "text",
    [
        "train_adapter: {threads: 8}\ntrain_adapter: {device: cuda}\n",
        '{"train_adapter": {"threads": 8, "threads": 2}}',
    ],
)
def test_a_key_that_is_given_twice_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "ratchet.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match="is given twice"):
        load_config(path)
