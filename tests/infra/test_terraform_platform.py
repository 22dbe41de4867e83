"""The optional infra/terraform/platform: what it passes to the community's modules, and reads of them, exists.

Terraform's registry is not reached by the tests, so their inputs and outputs are data, in terraform_modules.json.
"""

import json
import re
from pathlib import Path

import pytest

from support.terraform_code import CODE, body_of

PLATFORM = CODE / "platform"
KNOWN = json.loads(Path(__file__).with_name("terraform_modules.json").read_text())["modules"]
TEXT = "\n".join(path.read_text() for path in sorted(PLATFORM.glob("*.tf")))
CALLS = {name: body_of(TEXT, f'module "{name}"') for name in re.findall(r'^module "(\w+)"', TEXT, re.MULTILINE)}
META = {"source", "version", "for_each", "count", "depends_on", "providers"}


def _module(call: str) -> str:
    return re.search(r'source\s*= "terraform-aws-modules/(\w+)/aws"', CALLS[call])[1]  # type: ignore[index]


def _keys(body: str, indent: int) -> set[str]:
    """Names that a block assigns at this depth, as `terraform fmt` writes them."""
    return set(re.findall(rf"^ {{{indent}}}([\w-]+)\s*=", body, re.MULTILINE))


@pytest.mark.parametrize("call", CALLS)
def test_module_is_pinned_and_is_given_only_what_it_takes(call: str) -> None:
    known = KNOWN[_module(call)]
    assert re.search(r'^  version\s*= "(.+)"$', CALLS[call], re.MULTILINE)[1] == known["version"]  # type: ignore[index]
    given = _keys(CALLS[call], 2) - META
    assert given <= set(known["inputs"])
    assert set(known["required"]) <= given


def test_only_what_a_module_gives_is_read() -> None:
    read = re.findall(r"\bmodule\.(\w+)\.(\w+)", TEXT)
    assert {call for call, _ in read} == {"cluster", "key"}
    assert not [(call, output) for call, output in read if output not in KNOWN[_module(call)]["outputs"]]
    assert set(re.findall(r"\bdatabase\.(\w+)", TEXT)) <= set(KNOWN["rds"]["outputs"])
    assert set(re.findall(r'eks_managed_node_groups\["general"\]\.(\w+)', TEXT)) <= set(
        KNOWN["eks"]["node_group_outputs"]
    )


def test_groups_addons_and_administrators_have_only_fields_that_the_module_knows() -> None:
    """Terraform drops a field of an object that the type does not name, without a word."""
    cluster = CALLS["cluster"]
    group = _keys(body_of(cluster, "    general ="), 6)
    assert group <= set(KNOWN["eks"]["node_group"])
    assert {"attach_cluster_primary_security_group", "block_device_mappings"} <= group
    addons = set(re.findall(r"^ {6}(\w+)\s*=", body_of(cluster, "  addons ="), re.MULTILINE))
    addons |= set(re.findall(r"= \{ (\w+) =", body_of(cluster, "  addons =")))
    assert addons <= set(KNOWN["eks"]["addon"])
    entry = _keys(body_of(cluster, "    for role in var.administrators : role =>"), 6)
    assert entry <= set(KNOWN["eks"]["access_entry"])


def test_outputs_are_what_the_main_module_asks_for() -> None:
    asked = (CODE / "variables.tf").read_text()
    given = body_of(TEXT, 'output "gpu_nodes"')
    assert _keys(body_of(given, "  value ="), 4) == {"cluster_name", "node_role_arn", "subnet_ids"}
    for name in ("oidc_provider_arn", "kms_key_arn", "gpu_nodes"):
        assert f'output "{name}"' in TEXT
        assert f'variable "{name}"' in asked


def test_databases_are_reached_from_the_cluster_alone_and_kept() -> None:
    database = CALLS["database"]
    assert re.search(r"publicly_accessible\s*= false", database)
    assert re.search(r"manage_master_user_password\s*= true", database)
    assert re.search(r"deletion_protection\s*= !var.destroy_data", database)
    rule = body_of(TEXT, 'resource "aws_vpc_security_group_ingress_rule" "databases"')
    assert "referenced_security_group_id = module.cluster.cluster_primary_security_group_id" in rule
    assert "cidr" not in rule
