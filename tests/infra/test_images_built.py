"""The images of infra/images, built for real and run as production runs them; skipped without a container engine.

Airflow's is built on a stand-in for the official image, which no registry brings here: tests/infra/standin.
"""

import json
import re
import shutil
import socket
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from support.container_engine import LOCKED_DOWN, ROOT, Podman

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
IMAGES = ROOT / "infra" / "images"
SERVICES = "localhost/ratchet-test-release-services"
COMPONENTS = "localhost/ratchet-test-components"
AIRFLOW = "localhost/ratchet-test-airflow"
STANDIN = Path(__file__).with_name("standin")
STANDIN_IMAGE = "localhost/ratchet-test-airflow-standin"
OFFICIAL = json.loads(Path(__file__).with_name("airflow_image.json").read_text())
MISSING = "apache-airflow-providers-postgres"  # in the stand-in, so that ours has something to add
CONTEXT = ["components", "pipelines", "dags", "requirements", "infra/images"]
FILES = [".dockerignore", "pyproject.toml", "README.md"]


@pytest.fixture(scope="module")
def podman(tmp_path_factory: pytest.TempPathFactory) -> Podman:
    return Podman(tmp_path_factory.mktemp("podman"))


@pytest.fixture(scope="module")
def services(podman: Podman) -> str:
    podman.build(IMAGES / "release-services.Dockerfile", SERVICES)
    return SERVICES


@pytest.fixture(scope="module")
def airflow(podman: Podman, tmp_path_factory: pytest.TempPathFactory) -> str:
    context = tmp_path_factory.mktemp("standin")
    for name in ("entrypoint", "clean-logs"):
        shutil.copy2(STANDIN / name, context)
    pins = (ROOT / "requirements" / "airflow.txt").read_text().splitlines()
    kept = [pin for pin in pins if not pin.startswith(f"{MISSING}==")]
    (context / "distributions.txt").write_text("\n".join([*kept, "apache-airflow-providers-fab"]))
    podman.build(STANDIN / "airflow-base.Dockerfile", STANDIN_IMAGE, context=context)
    podman.build(IMAGES / "airflow.Dockerfile", AIRFLOW, base=STANDIN_IMAGE)
    return AIRFLOW


@pytest.fixture
def context(tmp_path: Path) -> Path:
    """A checkout to change."""
    folder = tmp_path / "checkout"
    for name in CONTEXT:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in FILES:
        shutil.copy2(ROOT / name, folder / name)
    return folder


def test_services_run_as_nobody_on_a_read_only_disk(podman: Podman, services: str) -> None:
    assert podman.run(services, "id", "-u").stdout.strip() == "10001"
    assert "serve-gate" in podman.run(services, "ratchet", "--help").stdout
    assert podman.run(services, "touch", "/opt/ratchet/x").returncode == 1
    assert podman.run(services, "sh", "-c", "mkdir /tmp/lake && ratchet releases --lake /tmp/lake").returncode == 0
    refused = podman.run(services, "ratchet", "reconcile", "--once")
    assert refused.returncode == 2
    assert "release_adapter.git_url is not set" in " ".join(refused.stderr.split())


def test_services_have_what_they_import_and_no_training_stack(podman: Podman, services: str) -> None:
    modules = "mlflow, ratchet.release.gate.app, ratchet.release.reconciler.reconcile, ratchet.router.app"
    needed = f"import {modules}; mlflow.MlflowClient"
    done = podman.run(services, "python", "-c", needed)
    assert done.returncode == 0, done.stderr
    for absent in ("torch", "polars", "pip", "uv"):
        assert podman.run(services, "python", "-c", f"import {absent}").returncode == 1, absent
    assert podman.run(services, "git", "--version").returncode == 0


def test_router_serves_from_its_image(podman: Podman, services: str) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    started = podman(
        "run",
        "--detach",
        "--read-only",
        "--cap-drop=all",
        "--tmpfs=/tmp",
        f"--env=RATCHET_PORT={port}",
        "--env=RATCHET_LAKE=/tmp/lake",
        "--env=RATCHET_POOL_URL=http://127.0.0.1:9",
        "--env=RATCHET_SECRET=a-secret-of-thirty-two-characters-or-more",
        services,
        "ratchet",
        "serve-router",
    )
    assert started.returncode == 0, started.stderr
    container = started.stdout.strip()
    try:
        assert _answer(f"http://127.0.0.1:{port}/healthz") == 200
    except TimeoutError as error:
        raise AssertionError(podman("logs", container).stderr) from error
    finally:
        podman("rm", "--force", "--time=10", container)


def _answer(url: str, timeout_s: float = 60) -> int:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return int(answer.status)
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.2)
    raise TimeoutError(url)


def test_image_remembers_nothing_of_the_machine_that_built_it(podman: Podman, services: str) -> None:
    left = podman.run(services, "sh", "-c", "ls -d /etc/pip.conf /etc/uv /root/.cache/* /opt/uv /var/lib/apt/lists/*")
    assert left.stdout == ""
    history = podman("history", "--no-trunc", services).stdout
    assert "ratchet" in history
    assert not [word for word in ("find-links", "index-url", "system-certs") if word in history]


def test_code_change_installs_no_dependency_again(podman: Podman, services: str, context: Path) -> None:
    podman.build(IMAGES / "release-services.Dockerfile", SERVICES, context=context)
    with (context / "components/ratchet/__init__.py").open("a") as module:
        module.write('\nCHANGED = "yes"\n')
    start = time.monotonic()
    said = podman.build(IMAGES / "release-services.Dockerfile", SERVICES, context=context)
    seconds = time.monotonic() - start
    assert _was_cached(said, "uv pip install --require-hashes --requirements /requirements.txt")
    assert not _was_cached(said, "uv pip install --no-deps --prefix /code")
    assert seconds < 120  # about 13 on two idle cores
    assert podman.run(SERVICES, "python", "-c", "import ratchet; print(ratchet.CHANGED)").stdout.strip() == "yes"


def _was_cached(said: str, step: str) -> bool:
    lines = said.splitlines()
    at = next(number for number, line in enumerate(lines) if "STEP" in line and step in line)
    return lines[at + 1].startswith("--> Using cache")


@pytest.mark.parametrize("target", ["cpu", "cuda"])
def test_components_have_the_shape_of_their_variant(podman: Podman, services: str, context: Path, target: str) -> None:
    """With few of the dependencies, and no torch: all of them are gigabytes."""
    listing = "from importlib.metadata import distributions; print(*(d.name.lower() for d in distributions()))"
    names = podman.run(services, "python", "-c", listing).stdout.replace("_", "-").split()
    pins = context / "requirements" / "images" / f"components-{target}.txt"
    entries = re.split(r"(?m)^(?=\S)", pins.read_text())
    pins.write_text("".join(entry for entry in entries if re.split(r"==|\[", entry)[0] in names))
    few = "--build-arg=SMOKE_OPTIONS=--without-torch"
    said = podman.build(IMAGES / "components.Dockerfile", COMPONENTS, f"--target={target}", few, context=context)
    assert ("builds extensions for Python" in said) == (target == "cuda")
    assert podman.run(COMPONENTS, "id", "-u").stdout.strip() == "10001"
    assert "train-adapter" in podman.run(COMPONENTS, "ratchet", "--help").stdout
    capabilities = podman.run(COMPONENTS, "printenv", "NVIDIA_DRIVER_CAPABILITIES").stdout.strip()
    assert capabilities == ("compute,utility" if target == "cuda" else "")


@pytest.mark.parametrize("execution", ["local", "kubernetes"])
def test_airflow_reads_its_dags_and_has_no_step_in_it(
    podman: Podman, airflow: str, tmp_path: Path, execution: str
) -> None:
    images = {"cpu": f"cpu@sha256:{'0' * 64}", "cuda": f"cuda@sha256:{'0' * 64}"}
    (tmp_path / "pods.json").write_text(json.dumps({"images": images, "lake": "s3://lake"}))
    (tmp_path / "airflow.cfg").touch()  # Airflow's chart mounts one too
    reading = "from airflow.dag_processing.dagbag import DagBag; b = DagBag(); print(sorted(b.dags), b.import_errors)"
    done = podman(
        "run",
        "--rm",
        *LOCKED_DOWN,
        "--tmpfs=/opt/airflow/logs:mode=1777",
        f"--volume={tmp_path}/airflow.cfg:/opt/airflow/airflow.cfg:ro",
        f"--volume={tmp_path}/pods.json:/etc/ratchet/pods.json:ro",
        "--env=RATCHET_PODS=/etc/ratchet/pods.json",
        f"--env=RATCHET_EXECUTION={execution}",
        "--env=PYTHONPATH=/opt/airflow/dags",
        airflow,
        "python",
        "-c",
        reading,
    )
    assert "'collect_feedback'" in done.stdout, done.stdout + done.stderr
    assert done.stdout.rstrip().endswith("{}"), done.stdout
    assert podman.run(airflow, "bash", "-c", "id -u").stdout.strip() == "50000"
    assert podman.run(airflow, "python", "-c", "import ratchet").returncode == 1


def test_airflow_adds_what_its_base_lacks_and_can_run_what_the_chart_runs(podman: Podman, airflow: str) -> None:
    listing = f"from importlib.metadata import version; print(version('{MISSING}'))"
    assert (
        f"{MISSING}=={podman.run(airflow, 'python', '-c', listing).stdout.strip()} "
        in (ROOT / "requirements" / "images" / "airflow.txt").read_text()
    )
    bom = json.loads(podman.run(airflow, "bash", "-c", "cat /usr/share/sbom/ratchet.cdx.json").stdout)
    assert {MISSING, "apache-airflow-providers-fab"} <= {component["name"] for component in bom["components"]}
    for program in OFFICIAL["programs"]:
        assert podman.run(airflow, "bash", "-c", f"test -x {program}").returncode == 0, program
    assert podman.run(airflow, "bash", "/clean-logs").returncode == 0
    probed = podman.run(airflow, "bash", "-c", "exec /entrypoint airflow jobs check --help")
    assert probed.returncode == 0, probed.stderr
    users = podman(
        "run",
        "--rm",
        *LOCKED_DOWN,
        "--tmpfs=/opt/airflow/logs:mode=1777",
        "--env=AIRFLOW__CORE__AUTH_MANAGER=airflow.providers.fab.auth_manager.fab_auth_manager.FabAuthManager",
        airflow,
        "users",
        "--help",
    )
    assert users.returncode == 0, users.stdout + users.stderr


def test_image_says_what_is_in_it_and_where_it_comes_from(podman: Podman, services: str) -> None:
    podman.build(
        IMAGES / "release-services.Dockerfile", SERVICES, "--build-arg=REVISION=0a1b", "--build-arg=VERSION=1.2"
    )
    listed = json.loads(podman.run(services, "cat", "/usr/share/sbom/ratchet.cdx.json").stdout)
    assert listed["bomFormat"] == "CycloneDX"
    names = {component["name"].lower().replace("_", "-") for component in listed["components"]}
    assert {"mlflow-skinny", "starlette", "boto3"} <= names
    assert not names & {"uv", "cyclonedx-bom", "torch"}
    labels = json.loads(podman("image", "inspect", services).stdout)[0]["Labels"]
    assert labels["org.opencontainers.image.revision"] == "0a1b"
    assert labels["org.opencontainers.image.version"] == "1.2"
