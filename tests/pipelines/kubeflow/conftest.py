"""The pipelines, built once: with everything a cluster is asked for, and bare for this machine."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from ratchet_pipelines.kubeflow.pipelines import Images, Pipeline, build_pipelines

LOCAL = Images(cpu=f"python@sha256:{'0' * 64}")  # kfp.local warns of images without "python" in their names


@pytest.fixture(scope="session")
def images() -> Images:
    return Images(
        cpu=f"registry.example.com/ratchet-components@sha256:{'1' * 64}",
        cuda=f"registry.example.com/ratchet-components-cuda@sha256:{'2' * 64}",
    )


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory, images: Images) -> Path:
    """Folder of everything that the command writes."""
    # In a process of its own: where Hera is imported too, it changes how PyYAML writes strings.
    folder = tmp_path_factory.mktemp("compiled")
    command = [sys.executable, "-m", "ratchet_pipelines.cli", "compile", "kubeflow"]
    subprocess.run([*command, "--image", images.cpu, "--cuda-image", images.cuda, "--out", folder], check=True)
    return folder


@pytest.fixture(scope="session")
def local_pipelines() -> dict[str, Pipeline]:
    """Without needs: kfp.local warns of each that it ignores, and sleeps through retries."""
    return build_pipelines(LOCAL, needs={})


@pytest.fixture(scope="session")
def settings(tiny_model: Path) -> str:
    """A ratchet.yaml as text, for the tiny model. `force` lets its release follow, whatever the verdict."""
    return yaml.safe_dump(
        {
            "base_model": {"model": str(tiny_model), "dtype": "float32"},
            "train_adapter": {"max_tokens": 96, "checkpoint_steps": 2},
            "evaluate_adapter": {"min_pairs": 4, "max_new_tokens": 4, "resamples": 200},
            "release_adapter": {"force": True},
        }
    )
