"""CI's rule on skips, on a run of pytest of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent


def run(folder: Path, reason: str, **environment: str) -> subprocess.CompletedProcess[str]:
    (folder / "test_one.py").write_text(f"import pytest\n\ndef test_it():\n    pytest.skip({reason!r})\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "support.strict_skips", "-p", "no:randomly", "test_one.py"]
    known = {name: value for name, value in os.environ.items() if name != "CI" and not name.startswith("PYTEST_")}
    known |= {"PYTHONPATH": str(TESTS), **environment}
    return subprocess.run(command, cwd=folder, env=known, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("workers", [(), ("-n", "1")], ids=["one process", "xdist"])
def test_a_skip_that_is_not_on_the_list_fails_ci(tmp_path: Path, workers: tuple[str, ...]) -> None:
    done = run(tmp_path, "no browser", CI="true", PYTEST_ADDOPTS=" ".join(workers))
    assert done.returncode == 1
    assert "no browser" in done.stdout


def test_it_is_allowed_on_a_persons_machine(tmp_path: Path) -> None:
    assert run(tmp_path, "no browser").returncode == 0


def test_a_skip_on_the_list_is_allowed_in_ci(tmp_path: Path) -> None:
    reason = "no CRD schemas beside the checkout: ../shared/crds is absent"
    assert run(tmp_path, reason, CI="true").returncode == 0
