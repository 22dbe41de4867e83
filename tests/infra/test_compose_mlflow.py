"""The MLflow of infra/compose, from its own image by its own command, on a real Postgres and an S3 server."""

import os
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from ratchet.config import Config
from ratchet.registry.mlflow_store import connect, experiment_id
from ratchet.store import open_store
from support.container_engine import ROOT, Podman
from support.s3_server import s3_server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
IMAGE = "localhost/ratchet-test-mlflow"
SERVICES = yaml.safe_load((ROOT / "infra/compose/compose.yaml").read_text())["services"]


@pytest.fixture(scope="module")
def podman(tmp_path_factory: pytest.TempPathFactory) -> Podman:
    podman = Podman(tmp_path_factory.mktemp("podman"))
    podman.build(ROOT / "infra/images/mlflow.Dockerfile", IMAGE)
    return podman


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def postgres(tmp_path: Path) -> Iterator[str]:
    """An empty database of a server of our own."""
    if shutil.which("initdb") is None or shutil.which("postgres") is None:
        pytest.skip("postgres is not installed")
    port = free_port()
    # The server refuses to run as root, and its user must reach the folder.
    user = ["runuser", "--user=postgres", "--"] if os.geteuid() == 0 else []
    folder = Path(subprocess.check_output([*user, "mktemp", "--directory"], text=True).strip())
    subprocess.run(
        [*user, "initdb", f"--pgdata={folder}", "--username=ratchet", "--auth=trust", "--no-sync"],
        check=True,
        capture_output=True,
    )
    server = subprocess.Popen(
        [*user, "postgres", "-D", str(folder), "-p", str(port), "-k", str(folder), "-c", "listen_addresses=127.0.0.1"],
        stderr=subprocess.DEVNULL,
    )
    try:
        yield f"postgresql://ratchet@127.0.0.1:{port}/postgres"
    finally:
        server.terminate()
        server.wait()
        shutil.rmtree(folder)


def test_steps_register_through_mlflow_on_postgres_and_s3(podman: Podman, postgres: str, tmp_path: Path) -> None:
    with s3_server("other") as endpoint:
        place = [
            f"--env=AWS_ENDPOINT_URL={endpoint}",
            "--env=AWS_ACCESS_KEY_ID=test",
            "--env=AWS_SECRET_ACCESS_KEY=test",
        ]
        locked = ["--rm", "--read-only", "--cap-drop=all", "--tmpfs=/tmp", "--env=AWS_DEFAULT_REGION=us-east-1", *place]
        for _ in range(2):
            done = podman("run", *locked, IMAGE, *SERVICES["buckets"]["command"])
            assert done.returncode == 0, done.stderr
        url = f"http://127.0.0.1:{free_port()}"
        command = [word.replace("5000", url.rpartition(":")[2]) for word in SERVICES["mlflow"]["command"]]
        started = podman("run", "--detach", *locked, f"--env=MLFLOW_BACKEND_STORE_URI={postgres}", IMAGE, *command)
        assert started.returncode == 0, started.stderr
        try:
            _wait_for(f"{url}/health")
            config = Config.model_validate({"registry": {"tracking_uri": url}})
            client = connect(config, open_store(tmp_path / "lake"))
            run = client.create_run(experiment_id(client, config))
            client.log_text(run.info.run_id, "kept", "note.txt")
            client.create_registered_model("adapter")
            assert client.search_registered_models()[0].name == "adapter"
            assert run.info.artifact_uri.startswith("mlflow-artifacts:/")
        finally:
            podman("stop", "--time=10", started.stdout.strip())
        assert _objects("mlflow") == ["note.txt"]


def _wait_for(url: str, timeout_s: float = 180) -> None:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except OSError:
            time.sleep(0.5)
    raise TimeoutError(url)


def _objects(bucket: str) -> list[str]:
    import boto3

    client = boto3.client("s3")
    found = [one["Key"].rpartition("/")[2] for one in client.list_objects_v2(Bucket=bucket)["Contents"]]
    client.close()
    return found
