"""From an installed wheel, in an empty folder: what the demo and the rehearsal need travels with the package."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("components", "pipelines", "charts", "pyproject.toml", "README.md")
Run = Callable[..., str]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel's contents. Built from a copy, since a build leaves files in its sources."""
    folder = tmp_path_factory.mktemp("installed")
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(
                source, folder / "source" / name, symlinks=True, ignore=shutil.ignore_patterns("*.egg-info")
            )
        else:
            shutil.copy(source, folder / "source" / name)
    pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
    offline = ("--no-deps", "--no-index")
    wheels = folder / "wheels"
    for command in (
        (*pip, "wheel", *offline, "--no-build-isolation", "--wheel-dir", wheels, folder / "source"),
        (*pip, "install", *offline, "--find-links", wheels, "--target", folder / "site", "ratchet-lora"),
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    return folder / "site"


@pytest.fixture
def run(installed: Path, tmp_path: Path) -> Run:
    """Run Python in an empty folder, with the installed packages before an editable install of the checkout."""

    def run(*arguments: str) -> str:
        environment = {**os.environ, "PYTHONPATH": str(installed)}
        command = [sys.executable, "-P", *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_the_packages_are_the_installed_ones(run: Run, installed: Path) -> None:
    found = run("-c", "import ratchet, ratchet_pipelines as p; print(ratchet.__file__, p.__file__)").split()
    assert [Path(path).parents[1] for path in found] == [installed, installed]


def test_every_file_of_the_charts_is_in_the_wheel(installed: Path) -> None:
    packaged = installed / "ratchet_pipelines" / "charts"
    assert not packaged.is_symlink()
    files = {path.relative_to(ROOT / "charts") for path in (ROOT / "charts").rglob("*") if path.is_file()}
    assert {path.relative_to(packaged) for path in packaged.rglob("*") if path.is_file()} == files
    for path in files:
        assert (packaged / path).read_bytes() == (ROOT / "charts" / path).read_bytes()


def test_a_rehearsal_renders_the_charts_of_the_install(run: Run) -> None:
    [row] = json.loads(run("-m", "ratchet_pipelines.cli", "rehearse", "--fault", "worse", "--runs", "1", "--json"))
    assert row["outcomes"] == {"rolled_back": 1}


@pytest.mark.slow  # a release in real processes: two minutes on an idle machine
@pytest.mark.timeout(600)
def test_a_release_is_rehearsed_in_real_processes(run: Run) -> None:
    arguments = ("rehearse", "--clock", "real", "--fault", "worse", "--out", "rehearsed", "--json")
    [row] = json.loads(run("-m", "ratchet_pipelines.cli", *arguments))
    assert (row["outcomes"], row["agreed"]) == ({"rolled_back": 1}, 1)
