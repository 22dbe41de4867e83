"""`ratchet config` and `ratchet profile`: the settings shown, explained and written from their model."""

import json
import os
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from typer.testing import CliRunner

from ratchet.config import KEYS, Config, Lora, load_config
from ratchet.errors import UserError
from ratchet_pipelines.cli.main import app
from ratchet_pipelines.config_reference import SCHEMA_FILE, SCHEMA_LINE, read_keys
from ratchet_pipelines.profiles import FOLDER, profile_names, profile_path

PROFILES = profile_names()


def ratchet(*args: object, width: int = 120) -> str:
    environment = {"COLUMNS": str(width), "RATCHET_CONFIG": ""}
    done = CliRunner().invoke(app, [str(arg) for arg in args], catch_exceptions=False, env=environment)
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "gate:\ntrain_adapter: {lora: {r: 16}, sft: {epochs: 1}}\nrelease_adapter: {git_url: https://git/x}\n"
    )
    return path


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    return json.loads(ratchet("config", "schema"))


def test_every_key_has_a_description() -> None:
    assert [key.name for key in read_keys(profile_path("local"), "profile") if not key.description] == []


def test_show_is_the_whole_configuration_as_yaml(file: Path) -> None:
    shown = ratchet("config", "show", "--config", file)
    assert Config.model_validate(yaml.safe_load(shown)) == load_config(file)
    assert re.search(r"^    r: 16 +# mine\.yaml$", shown, re.MULTILINE)
    assert re.search(r"^  alpha: 0\.05 +# default$", shown, re.MULTILINE)


def test_show_changed_has_only_what_differs_from_the_default(file: Path, tmp_path: Path) -> None:
    changed = yaml.safe_load(ratchet("config", "show", "--changed", "--config", file))
    assert changed == {"train_adapter": {"lora": {"r": 16}}, "release_adapter": {"git_url": "https://git/x"}}
    empty = tmp_path / "empty.yaml"
    empty.write_text("")
    assert yaml.safe_load(ratchet("config", "show", "--changed", "--config", empty)) == {}


def test_show_names_the_source_of_every_value(file: Path) -> None:
    values = json.loads(ratchet("config", "show", "--json", "--config", file))
    assert values["train_adapter.lora.r"] == {"value": 16, "from": "mine.yaml"}
    assert values["train_adapter.sft.epochs"] == {"value": 1.0, "from": "mine.yaml"}  # given, although the default
    assert values["train_adapter.dpo.epochs"]["from"] == "default"
    assert json.loads(ratchet("config", "show", "--json"))["train_adapter.max_tokens"]["from"] == "profile local"


@pytest.mark.parametrize("width", [80, 120])
def test_explain_gives_meaning_type_default_and_value_of_each_key(file: Path, width: int) -> None:
    for name in KEYS:
        text = ratchet("config", "explain", name, "--config", file, width=width)
        assert name in text
        assert max(map(len, text.splitlines())) <= width
    text = ratchet("config", "explain", "train_adapter.lora.r", "--config", file, width=width)
    for words in ("at most lora.maxRank of the pool", "integer, at least 1", "default  8", "16 (from mine.yaml)"):
        assert words in text
    section = " ".join(ratchet("config", "explain", "gate", "--config", file, width=width).split())
    assert "alpha 0.05 Error rate of each test over the whole canary (number, above 0, below 0.5)" in section


def test_explain_as_json(file: Path) -> None:
    key = json.loads(ratchet("config", "explain", "train_adapter.lora.r", "--config", file, "--json"))
    assert (key["default"], key["value"], key["from"]) == (8, 16, "mine.yaml")
    section = json.loads(ratchet("config", "explain", "train_adapter.lora", "--json"))
    assert [key["key"] for key in section] == [f"train_adapter.lora.{name}" for name in Lora.model_fields]


def test_schema_is_a_schema_of_its_dialect(schema: dict[str, Any]) -> None:
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    jsonschema.Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize("name", PROFILES)
def test_schema_accepts_every_profile(schema: dict[str, Any], name: str) -> None:
    for text in (profile_path(name).read_text(), ratchet("profile", name)):
        jsonschema.validate(yaml.safe_load(text), schema, jsonschema.Draft202012Validator)
        assert text.startswith(SCHEMA_LINE + "\n")


@pytest.mark.parametrize(
    "given",
    [
        {"gaet": {}},
        {"gate": {"alfa": 0.1}},
        {"gate": {"alpha": 0.5}},
        {"gate": 3},
        {"train_adapter": {"lora": {"r": 513}}},
        {"train_adapter": {"device": "tpu"}},
        {"registry": {"tracking_uri": 3}},
    ],
)
def test_schema_and_loader_refuse_the_same_faults(
    schema: dict[str, Any], given: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "ratchet.yaml"
    path.write_text(yaml.safe_dump(given))
    with pytest.raises(UserError):
        load_config(path)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(given, schema, jsonschema.Draft202012Validator)


def test_golden_schema_beside_the_profiles_is_todays() -> None:
    text, golden = ratchet("config", "schema"), FOLDER / SCHEMA_FILE
    if os.environ.get("REGENERATE_GOLDEN") == "1":
        golden.write_text(text)
    assert text == golden.read_text(), "run once with REGENERATE_GOLDEN=1 and review the difference"


@pytest.mark.parametrize("name", PROFILES)
def test_printed_profile_is_the_profile_with_every_key(name: str, tmp_path: Path) -> None:
    path = tmp_path / "ratchet.yaml"
    path.write_text(ratchet("profile", name))
    assert load_config(path) == load_config(profile_path(name))
    whole, uncommented = re.subn(r"^( *)#(\w+:)", r"\1\2", path.read_text(), flags=re.MULTILINE)
    assert uncommented
    path.write_text(whole)
    assert load_config(path) == load_config(profile_path(name))
    given = {key.name for key in read_keys(path, "file") if key.is_section or key.source == "file"}
    assert given == set(KEYS)


def test_printed_profile_keeps_the_notes_of_the_profile() -> None:
    assert "  # pin a commit before the first production run" in ratchet("profile", "gpu")
    assert "learning_rate: 0.0001  # at 3e-4 most answers come out empty" in ratchet("profile", "demo")
    assert max(len(line) for line in ratchet("profile", "local").splitlines()) <= 80
