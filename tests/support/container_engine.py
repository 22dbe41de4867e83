"""A container engine that works here, with a base image from Debian packages in the place of a registry's.

What the build needs of this machine (certificates, its package index, folders of wheels) goes in as secrets and mounts,
so that no layer remembers it.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BASE = "localhost/ratchet-base:bookworm"
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
LOCKED_DOWN = ["--read-only", "--cap-drop=all", "--security-opt=no-new-privileges", "--tmpfs=/tmp", "--network=none"]
# The defaults ask for more open files than a small machine may give, and for a network bridge.
ENGINE_SETTINGS = """
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
netns = "host"
"""


class Podman:
    """Podman with the first OCI runtime that starts a container on this machine."""

    def __init__(self, folder: Path) -> None:
        if shutil.which("podman") is None:
            pytest.skip("podman is not installed: `make system` brings it")
        self.folder = folder
        (folder / "containers.conf").write_text(ENGINE_SETTINGS)
        self.env = {**os.environ, "CONTAINERS_CONF": str(folder / "containers.conf")}
        self.runtime = ""
        self._make_base()
        self.runtime = next(filter(self._starts, ("crun", "runc")), "")
        if not self.runtime:
            pytest.skip("podman starts no container here, with crun or runc")

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        runtime = [f"--runtime={self.runtime}"] if self.runtime else []
        command = ["podman", *runtime, *arguments]
        return subprocess.run(command, cwd=ROOT, env=self.env, capture_output=True, text=True, check=False)

    def build(self, dockerfile: Path, tag: str, *options: str, context: Path = ROOT, base: str = BASE) -> str:
        """What the engine said while it built."""
        done = self(
            "build",
            "--isolation=chroot",
            "--layers",
            f"--tag={tag}",
            f"--file={dockerfile}",
            f"--build-arg=BASE_IMAGE={base}",
            *self._index(),
            *options,
            str(context),
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout + done.stderr

    def run(self, image: str, *command: str) -> subprocess.CompletedProcess[str]:
        """Run as production does: no root, no capabilities, nothing writable but /tmp."""
        return self("run", "--rm", *LOCKED_DOWN, image, *command)

    def _starts(self, runtime: str) -> bool:
        self.runtime = runtime
        return shutil.which(runtime) is not None and self("run", "--rm", "--network=none", BASE, "true").returncode == 0

    def _make_base(self) -> None:
        if self("image", "exists", BASE).returncode == 0:
            return
        if shutil.which("mmdebstrap") is None:
            pytest.skip(f"{BASE} is not there, and mmdebstrap, which makes it, is not installed")
        done = subprocess.run([ROOT / "infra/images/local-base.sh", BASE], env=self.env, capture_output=True, text=True)
        if done.returncode != 0:
            pytest.skip(f"the base image could not be made: {done.stderr.strip().splitlines()[-1:]}")

    def _index(self) -> Iterator[str]:
        """This machine's ways to packages: secrets for pip and uv, and the folders that they name."""
        wheels = [folder for folder in os.environ.get("PIP_FIND_LINKS", "").split() if Path(folder).is_dir()]
        pip, uv = self.folder / "pip.conf", self.folder / "uv.toml"
        pip.write_text(f"[global]\ncert = {CERTIFICATES}\n" if CERTIFICATES.is_file() else "")
        uv.write_text(f"system-certs = true\nfind-links = {wheels}\n")
        yield f"--secret=id=pip.conf,src={pip}"
        yield f"--secret=id=uv.toml,src={uv}"
        for path in (CERTIFICATES, *map(Path, wheels)):
            if path.exists():
                yield f"--volume={path}:{path}:ro"
