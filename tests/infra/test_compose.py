"""The services of infra/compose: the file is whole, keeps no secret, and offers nothing to the network."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = ROOT / "infra" / "compose" / "compose.yaml"
EXAMPLE = COMPOSE.parent / "example.env"
DEVCONTAINER = ROOT / ".devcontainer"
BESIDE = shutil.which("docker-compose", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
COMMANDS = ([BESIDE or "docker-compose"], ["docker", "compose"])


def services() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())["services"]
    return found


@pytest.mark.parametrize(
    "files", [[COMPOSE], [COMPOSE, DEVCONTAINER / "compose.yaml"]], ids=["services", "devcontainer"]
)
def test_compose_itself_reads_the_file(files: list[Path]) -> None:
    compose = next(filter(_answers, COMMANDS), None)
    if compose is None:
        pytest.skip("docker compose is not installed")
    chosen = [word for file in files for word in ("--file", str(file))]
    done = subprocess.run(
        [*compose, "--env-file", str(EXAMPLE), *chosen, "--profile", "airflow", "config", "--format", "json"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout)["services"]) >= set(services())


def _answers(compose: list[str]) -> bool:
    is_there = shutil.which(compose[0]) is not None
    return is_there and subprocess.run([*compose, "version"], capture_output=True, check=False).returncode == 0


def test_every_variable_is_in_the_example() -> None:
    asked = set(re.findall(r"\$\{([A-Z0-9_]+)", COMPOSE.read_text() + (DEVCONTAINER / "compose.yaml").read_text()))
    given = {line.partition("=")[0] for line in EXAMPLE.read_text().splitlines() if "=" in line and line[0] != "#"}
    assert asked == given


def test_no_password_is_in_the_file() -> None:
    for service in services().values():
        for name, value in service.get("environment", {}).items():
            if re.search("PASSWORD|SECRET", name):
                assert value.startswith("${"), name


def test_ports_are_open_to_this_machine_alone() -> None:
    ports = [port for service in services().values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_whoever_waits_for_a_service_waits_until_it_is_well() -> None:
    for service in services().values():
        for name, wait in service.get("depends_on", {}).items():
            is_well = "service_healthy" if "healthcheck" in services()[name] else "service_completed_successfully"
            assert wait["condition"] == is_well
    assert {name for name, service in services().items() if "healthcheck" not in service} == {"buckets"}


def test_no_image_is_whatever_is_newest() -> None:
    tags = [service["image"].partition(":")[2] for service in services().values()]
    assert all(tags)
    assert "latest" not in tags


def test_devcontainer_brings_the_services_and_sets_up() -> None:
    settings = json.loads((DEVCONTAINER / "devcontainer.json").read_text())
    files = [(DEVCONTAINER / file).resolve() for file in settings["dockerComposeFile"]]
    assert files == [COMPOSE, DEVCONTAINER / "compose.yaml"]
    assert settings["service"] in yaml.safe_load(files[1].read_text())["services"]
    assert settings["postCreateCommand"] == "make setup"
