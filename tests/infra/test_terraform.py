"""The Terraform of infra/terraform is formatted and valid, and says what is wrong with what it is given."""

import pytest

from support.terraform_code import Terraform, variables


@pytest.fixture(scope="module")
def terraform(tmp_path_factory: pytest.TempPathFactory) -> Terraform:
    return Terraform(tmp_path_factory.mktemp("code") / "terraform")


def test_code_is_formatted_and_valid(terraform: Terraform) -> None:
    terraform.must("fmt", "-check", "-diff", "-recursive")
    assert "Success!" in terraform.must("validate")


@pytest.mark.slow
def test_wrong_variables_are_refused_with_what_to_write(terraform: Terraform) -> None:
    wrong = {
        "name": ("Ratchet", "lower-case letters"),
        "lake_prefix": ("/a", "no slash at either end"),
        "kms_key_arn": ("alias/mine", "not an alias"),
        "events_cold_after_days": (7, "30 or more"),
        "service_accounts": ({"steps": ["ratchet-steps"]}, "namespace/name"),
        "undo_days": (0, "1 or more"),
        "oidc_provider_arn": ("arn:aws:eks:eu-central-1:123456789012:cluster/main", "list-open-id-connect-providers"),
    }
    terraform.point_at("http://127.0.0.1:9", variables() | {name: value for name, (value, _) in wrong.items()})
    done = terraform.run("plan", "-input=false", "-refresh=false")
    assert done.returncode == 1
    said = " ".join(done.stderr.replace("│", " ").split())
    assert not [name for name, (_, message) in wrong.items() if message not in said], said
