"""What a component does in its pod, short of the step itself: references, settings, permission, and the notice."""

import pytest

from ratchet.errors import UserError
from ratchet.manifest import Manifest
from ratchet.store import Store
from ratchet_pipelines.kubeflow.notice import WEBHOOK, notify
from ratchet_pipelines.kubeflow.steps import dereference, may_release, settings
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
    assert settings("base_model: {model: other}").base_model.model == "other"
    assert settings("{seed: 7, gate: {min_votes: 9}}").gate.min_votes == 9


@pytest.mark.parametrize(("config", "complaint"), [("gpus", "no such profile"), ("sede: 1", "did you mean 'seed'")])
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
