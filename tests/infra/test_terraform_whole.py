"""The Terraform of infra/terraform, all of it: applied, with nothing left to change, and destroyed to the last one."""

from collections.abc import Iterator
from typing import Any

import pytest

from support.s3_server import s3_server
from support.terraform_code import Account, Terraform, variables

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def terraform(tmp_path_factory: pytest.TempPathFactory) -> Terraform:
    return Terraform(tmp_path_factory.mktemp("code") / "terraform")


@pytest.fixture(scope="module")
def aws(terraform: Terraform) -> Iterator[Account]:
    """The code applied without GPU nodes, and destroyed at the end. Moto forgets a filter's size, so no event moves."""
    with s3_server() as endpoint:
        account = Account()
        terraform.point_at(endpoint, variables(lake_prefix="team/lake", destroy_data=True, events_cold_after_days=None))
        terraform.must("apply", "-input=false", "-auto-approve")
        yield account
        for bucket in account("s3").list_buckets()["Buckets"]:  # to moto, `only over TLS` forbids everything
            account("s3").delete_bucket_policy(Bucket=bucket["Name"])
        terraform.must("destroy", "-input=false", "-auto-approve")
        assert account("s3").list_buckets()["Buckets"] == []
        assert account("ecr").describe_repositories()["repositories"] == []
        account.close()


def _rules(aws: Account, bucket: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = aws("s3").get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]
    return found


def test_second_apply_changes_nothing(terraform: Terraform, aws: Account) -> None:
    changes = {one["address"]: one["change"]["actions"] for one in terraform.plan()["resource_changes"]}
    assert not {address: actions for address, actions in changes.items() if actions != ["no-op"]}


def test_lifecycle_stands_as_it_was_planned(aws: Account) -> None:
    rules = {rule["ID"]: rule for rule in _rules(aws, "test-lake")}
    assert rules["forget-trainings-given-up"]["Expiration"]["Days"] == 30
    assert rules["forget-old-versions-of-adapters"]["NoncurrentVersionExpiration"] == {"NoncurrentDays": 30}
    assert not [rule for rule in _rules(aws, "test-artifacts") if "Expiration" in rule]
