"""The Terraform of infra/terraform is formatted and valid, and says what is wrong with what it is given."""

import re

import pytest

from support.terraform_code import CODE, Terraform, variables

NODES = {"cluster_name": "main", "node_role_arn": "arn:aws:iam::123456789012:role/nodes", "subnet_ids": ["subnet-1"]}
GROUP = {"instance_types": ["g6e.4xlarge"], "disk_gib": 150}


@pytest.fixture(scope="module")
def terraform(tmp_path_factory: pytest.TempPathFactory) -> Terraform:
    return Terraform(tmp_path_factory.mktemp("code") / "terraform")


def test_code_is_formatted_and_valid(terraform: Terraform) -> None:
    terraform.must("fmt", "-check", "-diff", "-recursive")
    assert "Success!" in terraform.must("validate")


def test_lock_file_names_the_provider_for_every_platform() -> None:
    """Without `zh:`, the hashes of packed files, it would do for the machine that wrote it and no other."""
    lock = (CODE / ".terraform.lock.hcl").read_text()
    pinned = re.search(r'source  = "hashicorp/aws"\s+version = "(.+)"', (CODE / "versions.tf").read_text())
    assert pinned and f'version     = "{pinned[1]}"' in lock
    assert len(re.findall(r'"zh:[0-9a-f]{64}"', lock)) == 15
    assert re.search(r'"h1:[A-Za-z0-9+/]{43}="', lock)


def test_wrong_variables_are_refused_with_what_to_write(terraform: Terraform) -> None:
    wrong = {
        "name": ("Ratchet", "lower-case letters"),
        "lake_prefix": ("/a", "no slash at either end"),
        "kms_key_arn": ("alias/mine", "not an alias"),
        "events_cold_after_days": (7, "30 or more"),
        "work_days": (1, "7 or more"),
        "service_accounts": ({"steps": ["ratchet-steps"]}, "namespace/name"),
        "gpu_nodes": ({**NODES, "groups": {"training": {**GROUP, "max_size": 0}}}, "leave the group out for no GPU"),
        "undo_days": (0, "1 or more"),
        "oidc_provider_arn": ("arn:aws:eks:eu-central-1:123456789012:cluster/main", "list-open-id-connect-providers"),
    }
    terraform.point_at("http://127.0.0.1:9", variables() | {name: value for name, (value, _) in wrong.items()})
    done = terraform.run("plan", "-input=false", "-refresh=false")
    assert done.returncode == 1
    said = " ".join(done.stderr.replace("│", " ").split())
    assert not [name for name, (_, message) in wrong.items() if message not in said], said
