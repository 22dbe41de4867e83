"""What a component does in its pod, short of the step itself: references, settings, permission, and the notice."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ratchet.config import load_config
from ratchet.errors import UserError
from ratchet.manifest import Artifact, Manifest
from ratchet.release.ledger import Ledger, LedgerEntry, approval, close, read_ledger, request
from ratchet.store import Store
from ratchet_pipelines.cli.main import app
from ratchet_pipelines.kubeflow.notice import WEBHOOK, notify
from ratchet_pipelines.kubeflow.steps import approve, dereference, may_release, settings
from ratchet_pipelines.profiles import profile_names, profile_path
from support.webhook_server import receiver


@pytest.fixture
def manifest(lake: Store) -> Manifest:
    made = Manifest(step="build_datasets", key="k", inputs={}, code_version="0", created_at=0, seconds=0, outputs={})
    lake.create(made.uri, made.model_dump_json().encode())
    return made


def test_a_reference_with_or_without_its_digest_is_followed(lake: Store, manifest: Manifest) -> None:
    assert dereference(lake, "build_datasets", f"{manifest.uri}@{manifest.digest}") == manifest
    assert dereference(lake, "build_datasets", manifest.uri) == manifest


def test_a_reference_with_another_digest_is_refused(lake: Store, manifest: Manifest) -> None:
    with pytest.raises(UserError, match="right lake"):
        dereference(lake, "build_datasets", f"{manifest.uri}@{'0' * 64}")


def test_a_manifest_of_another_step_is_refused(lake: Store, manifest: Manifest) -> None:
    with pytest.raises(UserError, match="manifest of build_datasets; give one of train_adapter"):
        dereference(lake, "train_adapter", manifest.uri)


def test_settings_are_a_profiles_name_or_a_whole_text() -> None:
    assert settings("local").base_model.model == "smollm2-135m-instruct"
    assert settings("base_model: {model: other}\nseed: 1\n").base_model.model == "other"
    assert settings('{"seed": 7, "gate": {"min_votes": 9}}').gate.min_votes == 9


@pytest.mark.parametrize("profile", profile_names())
def test_a_yaml_that_a_form_has_put_on_one_line_is_refused_and_its_json_is_not(profile: str) -> None:
    """An <input> drops line ends from what is pasted (HTML: "strip newlines from the value")."""
    text = profile_path(profile).read_text()
    for pasted in (text.replace("\n", ""), text.replace("\n", " ")):
        with pytest.raises(UserError, match="ratchet config json"):
            settings(pasted)
    printed = CliRunner().invoke(app, ["config", "json", "--config", str(profile_path(profile))]).stdout
    assert settings(printed.replace("\n", "")) == load_config(profile_path(profile))


@pytest.mark.parametrize("config", ["", "  ", "# only\n# comments\n", "{}", "\n\n"])
def test_no_settings_are_not_all_defaults(config: str) -> None:
    with pytest.raises(UserError, match=r"no setting|neither a profile"):
        settings(config)


def test_a_published_file_is_named_by_its_digest(tmp_path: Path) -> None:
    file, lake = profile_path("gpu"), tmp_path / "lake"
    lake.mkdir()
    command = ["config", "publish", "--config", str(file), "--lake", str(lake)]
    reference, again = (CliRunner().invoke(app, command).stdout.strip() for _ in range(2))
    assert settings(reference) == load_config(file)
    assert again == reference
    next(lake.rglob("ratchet.yaml")).write_text("seed: 1\n")
    with pytest.raises(UserError, match="the digest there is"):
        settings(reference)


def test_the_form_of_a_release_approves_it_in_the_ledger(lake: Store) -> None:
    record = {"name": "adapter", "version": "2", "adapter_uri": "adapters/b", "adapter_digest": "b" * 64}
    lake.create("registry/n/version.json", json.dumps({**record, "verdict": "pass"}).encode())
    version = Artifact(uri="registry/n/version.json", digest="d")
    made = Manifest(
        step="register_adapter",
        key="k",
        inputs={},
        code_version="0",
        created_at=0,
        seconds=0,
        outputs={"version": version},
    )
    lake.create(made.uri, made.model_dump_json().encode())
    approve(lake.root, f"{made.uri}@{made.digest}", "", "")
    assert not read_ledger(lake)
    approve(lake.root, f"{made.uri}@{made.digest}", "ada", "read the report")
    assert [(record.event, record.who) for record in read_ledger(lake)] == [("approved", "ada")]
    entry = LedgerEntry(event="requested", at=1.0, who="t", adapter=read_ledger(lake)[0].adapter)
    opened = request(Ledger(lake), entry)
    assert opened is not None
    close(Ledger(lake), opened, "rolled_back", at=2.0, who="reconciler", quarantines=False)
    approve(lake.root, f"{made.uri}@{made.digest}", "ada", "read the report")  # Kubeflow tries the step again
    assert approval(read_ledger(lake), entry.adapter.digest) is None
    with pytest.raises(SystemExit):
        approve(lake.root, f"{made.uri}@{'0' * 64}", "ada", "another report")
    assert len(read_ledger(lake)) == 3


@pytest.mark.parametrize(("config", "complaint"), [("gpus", "neither a profile"), ("{sede: 1}", "did you mean 'seed'")])
def test_wrong_settings_are_explained(config: str, complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        settings(config)


@pytest.mark.parametrize(
    ("facts", "allowed"),
    [
        ({"verdict": "pass", "is_forced": False}, True),
        ({"verdict": "fail", "is_forced": False}, False),
        ({"verdict": "insufficient", "is_forced": True}, True),
    ],
)
def test_a_release_follows_a_pass_or_force(manifest: Manifest, facts: dict[str, object], allowed: bool) -> None:
    assert may_release(manifest.model_copy(update={"facts": facts})) is allowed


def test_the_notice_goes_to_the_log_and_to_the_webhook(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with receiver() as (url, got):
        monkeypatch.setenv(WEBHOOK, url)
        notify("s3://lake", "FAILED", "run-1", "Task train-adapter failed.")
    text = "Ratchet run run-1 on s3://lake failed: Task train-adapter failed."
    assert [each["body"] for each in got] == [{"text": text}]
    assert capsys.readouterr().out.strip() == text


def test_a_state_that_kubeflow_has_not_settled_is_just_an_end(capsys: pytest.CaptureFixture[str]) -> None:
    notify("s3://lake", "RUNNING", "run-1", "")
    assert capsys.readouterr().out.strip() == "Ratchet run run-1 on s3://lake ended"
