"""checkov's findings and their exceptions: nothing new passes, and no exception stays that nothing needs."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

INFRA = Path(__file__).resolve().parents[2] / "infra"
FAKE = """#!/bin/sh
cat <<'END'
%s
END
"""


@pytest.fixture
def scan() -> ModuleType:
    spec = importlib.util.spec_from_file_location("scan", INFRA / "scan.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _checkov(folder: Path, failed: dict[str, list[tuple[str, str]]], parsing_errors: int = 0) -> str:
    """A program that reports these findings as checkov 3.3.30 does."""
    reports = [
        {
            "check_type": kind,
            "results": {
                "failed_checks": [
                    {"check_id": check, "resource": resource, "check_name": "…", "file_path": "/file"}
                    for check, resource in failed.get(kind, [])
                ]
            },
            "summary": {"passed": 1, "parsing_errors": parsing_errors},
        }
        for kind in ("dockerfile", "terraform", "kubernetes")
    ]
    program = folder / "checkov"
    program.write_text(FAKE % json.dumps(reports))
    program.chmod(0o755)
    return str(program)


def _excepted() -> dict[str, list[tuple[str, str]]]:
    exceptions: dict[str, dict[str, Any]] = yaml.safe_load((INFRA / "scan.yaml").read_text())
    found = [(check, at.replace("*", "x")) for check, exception in exceptions.items() for at in exception["at"]]
    return {"terraform": found}


def test_every_exception_says_why() -> None:
    exceptions = yaml.safe_load((INFRA / "scan.yaml").read_text())
    assert all(set(one) == {"why", "at"} and len(one["why"].split()) > 5 and one["at"] for one in exceptions.values())


def test_exceptions_alone_pass(scan: ModuleType, tmp_path: Path) -> None:
    assert scan.main(_checkov(tmp_path, _excepted())) == 0


def test_a_finding_that_is_no_exception_fails(
    scan: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    failed = _excepted() | {"kubernetes": [("CKV_K8S_38", "Deployment.ratchet.adapter-router")]}
    assert scan.main(_checkov(tmp_path, failed)) == 1
    assert "CKV_K8S_38 Deployment.ratchet.adapter-router" in capsys.readouterr().err


def test_an_exception_that_nothing_needs_fails(
    scan: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    failed = {"terraform": [pair for pair in _excepted()["terraform"] if pair[0] != "CKV_AWS_18"]}
    assert scan.main(_checkov(tmp_path, failed)) == 1
    assert "CKV_AWS_18 no longer finds anything" in capsys.readouterr().err


def test_a_file_that_checkov_cannot_read_is_an_error(scan: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="cannot read 3 of the files"):
        scan.main(_checkov(tmp_path, _excepted(), parsing_errors=1))
