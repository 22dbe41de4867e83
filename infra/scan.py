"""Run checkov over images, Terraform and rendered charts, and compare what it finds with the exceptions in scan.yaml.

    .venv/bin/python infra/scan.py .venv-checkov/bin/checkov

It fails on a finding that is no exception, and on an exception that nothing needs any more. Nothing is downloaded, and
nothing is sent. Charts are rendered as they are deployed: images by digest, everything optional turned on.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from ratchet.rehearsal.argo import render

INFRA = Path(__file__).resolve().parent
CHARTS = INFRA.parent / "charts"
TAG = f"0.1.0@sha256:{'0' * 64}"
WATCHED = {"podMonitor": {"enabled": True}, "alerts": {"enabled": True}}
CHARTS_VALUES: dict[str, dict[str, Any]] = {
    "adapter-router": {"image": {"tag": TAG}, **WATCHED},
    "model-pool": {"image": {"tag": TAG}, "syncer": {"image": {"tag": TAG}}, **WATCHED},
    "release-services": {"image": {"tag": TAG}, "duels": {"enabled": True}, **WATCHED},
}


class Finding(NamedTuple):
    """A check of checkov's that a resource fails."""

    check: str
    resource: str
    name: str
    place: str


def main(checkov: str) -> int:
    """Print findings and exceptions that do not belong, and return 1 if there are any."""
    exceptions = yaml.safe_load((INFRA / "scan.yaml").read_text())
    with tempfile.TemporaryDirectory() as folder:
        _lay_out(Path(folder))
        reports = _run(checkov, Path(folder))
    found = list(_findings(reports))
    passed = sum(report["summary"]["passed"] for report in reports)
    new = [finding for finding in found if not _is_excepted(finding, exceptions)]
    stale = [(check, resource) for check, resource in _pairs(exceptions) if not _is_needed(check, resource, found)]
    for finding in new:
        print(f"{finding.place}: {finding.check} {finding.resource}: {finding.name}", file=sys.stderr)
    for check, resource in stale:
        print(f"infra/scan.yaml: {check} no longer finds anything at {resource}; take it out", file=sys.stderr)
    print(f"checkov: {passed} checks passed, {len(found) - len(new)} findings are exceptions, {len(new)} are not")
    return 1 if new or stale else 0


def _lay_out(folder: Path) -> None:
    """Put what is to be scanned into one folder: checkov finds its way by names and suffixes."""
    for dockerfile in (INFRA / "images").glob("*.Dockerfile"):
        shutil.copy2(dockerfile, folder)
    shutil.copytree(
        INFRA / "terraform", folder / "terraform", ignore=shutil.ignore_patterns(".terraform", "*.tfstate*")
    )
    for name, values in CHARTS_VALUES.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump_all(render(CHARTS / name, values, "ratchet")))


def _run(checkov: str, folder: Path) -> list[dict[str, Any]]:
    """Return checkov's reports, one for each kind of file. Raises RuntimeError where it did not come to an end."""
    command = [checkov, "--directory", str(folder), "--framework", "dockerfile", "terraform", "kubernetes"]
    options = ["--output", "json", "--compact", "--quiet", "--soft-fail", "--skip-download"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{checkov} ended with {done.returncode}: {done.stderr.strip()[-2000:]}")
    reports = json.loads(done.stdout)
    kinds = {report["check_type"] for report in reports}
    if kinds != {"dockerfile", "terraform", "kubernetes"}:
        raise RuntimeError(f"{checkov} looked at {sorted(kinds)} alone; is there a file that it cannot read?")
    unread = sum(report["summary"]["parsing_errors"] for report in reports)
    if unread:
        raise RuntimeError(f"{checkov} cannot read {unread} of the files")
    found: list[dict[str, Any]] = reports
    return found


def _findings(reports: list[dict[str, Any]]) -> Iterator[Finding]:
    for report in reports:
        for failed in report["results"]["failed_checks"]:
            yield Finding(failed["check_id"], failed["resource"], failed["check_name"], failed["file_path"].lstrip("/"))


def _pairs(exceptions: dict[str, dict[str, Any]]) -> Iterator[tuple[str, str]]:
    for check, exception in exceptions.items():
        for resource in exception["at"]:
            yield check, resource


def _is_excepted(finding: Finding, exceptions: dict[str, dict[str, Any]]) -> bool:
    return any(check == finding.check and fnmatchcase(finding.resource, at) for check, at in _pairs(exceptions))


def _is_needed(check: str, resource: str, found: list[Finding]) -> bool:
    return any(finding.check == check and fnmatchcase(finding.resource, resource) for finding in found)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
