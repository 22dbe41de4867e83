"""The Terraform of infra/terraform in a folder of its own, to be pointed at an AWS that is none."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import boto3
import pytest

CODE = Path(__file__).resolve().parents[2] / "infra" / "terraform"
ISSUER = "oidc.eks.us-east-1.amazonaws.com/id/TEST"
OVERRIDE = """
terraform {
  backend "local" {}
}

provider "aws" {
  s3_use_path_style           = true
  skip_credentials_validation = true
  skip_metadata_api_check     = true
  skip_requesting_account_id  = true

  endpoints {
    ecr = "ENDPOINT"
    eks = "ENDPOINT"
    iam = "ENDPOINT"
    s3  = "ENDPOINT"
    sts = "ENDPOINT"
  }
}
"""


def lists_of(file: Path) -> dict[str, list[str]]:
    """The lists of texts that a file assigns, by name."""
    found = re.findall(r"^\s*(\w+)\s*=\s*(\[[^\[\]]*\])\s*$", file.read_text(), re.MULTILINE)
    return {name: re.findall(r'"([^"]*)"', items) for name, items in found}


def body_of(text: str, head: str) -> str:
    """What is between the braces that follow `head`."""
    start = text.index("{", text.index(head) + len(head)) + 1
    depth, end = 1, start
    while depth:
        depth += {"{": 1, "}": -1}.get(text[end], 0)
        end += 1
    return text[start : end - 1]


def objects_of(file: Path, name: str) -> dict[str, dict[str, list[str]]]:
    """A local that maps names to objects of lists, written as `terraform fmt` writes it."""
    indent, body = re.search(rf"^( *){name} = {{\n(.*?)^\1}}$", file.read_text(), re.MULTILINE | re.DOTALL).groups()  # type: ignore[union-attr]
    found = re.findall(rf"^{indent}  ([\w-]+) = {{\n(.*?)^{indent}  }}$", body, re.MULTILINE | re.DOTALL)
    return {
        key: {right: re.findall(r'"([^"]*)"', items) for right, items in re.findall(r"(\w+)\s*= (\[.*\])", fields)}
        for key, fields in found
    }


def resources() -> set[str]:
    """Addresses of everything that the code makes, without keys."""
    found = re.compile(r'^resource "(\w+)" "(\w+)"', re.MULTILINE)
    return {".".join(pair) for file in CODE.glob("*.tf") for pair in found.findall(file.read_text())}


class Account:
    """What stands in the account, as AWS's own interface tells it."""

    def __init__(self) -> None:
        self.clients: dict[str, Any] = {}

    def __call__(self, service: str) -> Any:
        if service not in self.clients:
            self.clients[service] = boto3.client(service)
        return self.clients[service]

    def make_cluster(self) -> str:
        """An EKS cluster `main`, as it is there before our code comes; the role of its nodes."""
        eks = {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"Service": "eks.amazonaws.com"}}
        role: str = self("iam").create_role(
            RoleName="nodes", AssumeRolePolicyDocument=json.dumps({"Statement": [eks]})
        )["Role"]["Arn"]
        self("eks").create_cluster(name="main", roleArn=role, resourcesVpcConfig={"subnetIds": ["subnet-1"]})
        return role

    def close(self) -> None:
        for client in self.clients.values():
            client.close()


class Terraform:
    """The code in a folder of its own, with its plugins at hand."""

    def __init__(self, folder: Path) -> None:
        if shutil.which("terraform") is None:
            pytest.skip("terraform is not installed")
        self.folder = folder
        shutil.copytree(CODE, folder, ignore=shutil.ignore_patterns(".terraform", "*.tfstate*"))
        done = self.init("-backend=false")
        if done.returncode != 0:
            pytest.skip(f"Terraform's AWS provider is not to be had here: {done.stderr.strip().splitlines()[-1:]}")

    def init(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.run(
            "init",
            "-input=false",
            "-lockfile=readonly",
            *arguments,
            *[f"-plugin-dir={found}" for found in _plugin_folders()],
        )

    def point_at(self, endpoint: str, variables: dict[str, Any]) -> None:
        """From now on the code is about the AWS at this endpoint, its state a file."""
        (self.folder / "override.tf").write_text(OVERRIDE.replace("ENDPOINT", endpoint))
        (self.folder / "terraform.tfvars.json").write_text(json.dumps(variables))
        assert self.init("-reconfigure").returncode == 0

    def plan(self) -> dict[str, Any]:
        """What the next apply would do, as JSON."""
        self.must("plan", "-input=false", "-out=next.tfplan")
        found: dict[str, Any] = json.loads(self.must("show", "-json", "next.tfplan"))
        return found

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        # A configuration that is named and not there would only make Terraform warn.
        env = {name: value for name, value in os.environ.items() if name != "TF_CLI_CONFIG_FILE"}
        command = ["terraform", *arguments, "-no-color"]
        return subprocess.run(command, cwd=self.folder, env=env, capture_output=True, text=True, check=False)

    def must(self, *arguments: str) -> str:
        done = self.run(*arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


def _plugin_folders() -> list[Path]:
    """Folders that hold the provider unpacked, for machines that do not reach Terraform's registry."""
    return [path.parent for path in Path("/opt").glob("*/registry.terraform.io") if (path / "hashicorp/aws").is_dir()]


def variables(**more: Any) -> dict[str, Any]:
    provider = f"arn:aws:iam::123456789012:oidc-provider/{ISSUER}"
    return {"region": "us-east-1", "name": "test", "oidc_provider_arn": provider, **more}
