"""The command line as a whole: groups, names, shared options, what a wrong word is answered with."""

import json
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from ratchet.ingest.landing import land
from ratchet.store import Store
from ratchet_pipelines.cli import steps
from ratchet_pipelines.cli.main import PANELS, app
from ratchet_pipelines.graph import BY_NAME, STEPS
from support.event_factory import interaction, vote

# Options whose meaning, and so whose help, belongs to one command although others have an option of that name.
OWN_HELP = {
    "--lake": {"demo"},  # a folder that it makes, never the lake that RATCHET_LAKE names
    "--out": {"*"},  # what is written differs; that it is a file or a folder is checked below
    "--runs": {"*"},  # of what, differs
    "--help": {"*"},
}


def ratchet(*args: object, width: int = 200) -> Result:
    return CliRunner().invoke(app, [str(arg) for arg in args], env={"COLUMNS": str(width)})


def commands() -> Iterator[tuple[str, Any]]:
    """Every command with its full name."""

    def walk(group: Any, prefix: str) -> Iterator[tuple[str, Any]]:
        for name, command in group.commands.items():
            yield f"{prefix}{name}", command
            if hasattr(command, "commands"):
                yield from walk(command, f"{prefix}{name} ")

    return walk(typer.main.get_command(app), "")


@pytest.mark.parametrize("width", [80, 120])
def test_help_shows_every_command_under_its_panel_in_order(width: int) -> None:
    lines = ratchet("--help", width=width).stdout.splitlines()
    wanted = [word for panel, group in PANELS.items() for word in (panel, *group)]
    first_words = [line.strip("╭─│╮ ") for line in lines]
    places = [next(n for n, line in enumerate(first_words) if line.startswith(word)) for word in wanted]
    assert places == sorted(places)
    assert max(map(len, lines)) <= width


def test_app_is_complete_at_import_and_help_needs_no_heavy_library() -> None:
    heavy = {"polars", "torch", "mlflow", "transformers", "numpy", "kfp", "hera", "deltalake", "fastapi"}
    code = (
        "import sys\nfrom typer.testing import CliRunner\nfrom ratchet_pipelines.cli.main import app\n"
        "done = CliRunner().invoke(app, ['--help'])\nassert 'calibrate-judge' in done.stdout, done.output\n"
        f"print(sorted({heavy} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_names_have_hyphens_and_every_command_is_described() -> None:
    for name, command in commands():
        assert "_" not in name
        assert all("_" not in option for param in command.params for option in param.opts if option.startswith("-"))
        about = command.help.split("\n\n")[0]
        assert about.endswith("."), (name, about)


def test_one_option_has_one_meaning_in_every_command() -> None:
    helps: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for name, command in commands():
        for param in command.params:
            for option in param.opts:
                if option.startswith("--") and not OWN_HELP.get(option, set()) & {name, "*"}:
                    helps[option][str(param.help)].add(name)
    assert {option: dict(meanings) for option, meanings in helps.items() if len(meanings) > 1} == {}


def test_out_names_whether_it_is_a_file_or_a_folder() -> None:
    metavars = {
        name: param.metavar for name, command in commands() for param in command.params if "--out" in param.opts
    }
    assert metavars.pop("report") == metavars.pop("simulate-gate") == "FILE"
    assert set(metavars.values()) == {"FOLDER"}


def test_every_step_has_a_command_and_a_summary() -> None:
    assert [*steps.SUMMARIES] == [*BY_NAME]
    assert [*PANELS["Steps, each alone"]] == [step.name.replace("_", "-") for step in STEPS]


def test_a_step_is_the_same_by_either_spelling(lake: Store) -> None:
    land(lake, [interaction("a"), vote("good", "a")])
    uris = [ratchet(name, "--lake", lake.root).stdout for name in ("collect-triplets", "collect_triplets")]
    assert uris[0] == uris[1] != ""
    for given in ("collect-triplets", "collect_triplets"):
        done = ratchet("validate_triplets", "--lake", lake.root, "--in", f"{given}={uris[0].strip()}")
        assert done.exit_code == 0, done.output
    assert "collect_triplets" not in ratchet("--help").stdout


def test_run_stops_after_a_step_of_either_spelling(lake: Store) -> None:
    land(lake, [interaction("a"), vote("good", "a")])
    for until in ("collect-triplets", "collect_triplets"):
        done = ratchet("run", "--lake", lake.root, "--until", until, "--json")
        assert list(json.loads(done.stdout)["steps"]) == ["collect_triplets"]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["colect-triplets"], "No such command 'colect-triplets'. Did you mean 'collect-triplets'"),
        (["colect_triplets"], "Did you mean 'collect-triplets'"),
        (["lake", "statuss"], "Did you mean 'status'?"),
        (["run", "--confg", "x"], "--config"),
        (["run", "--until", "trian-adapter"], "no such step; did you mean 'train-adapter'?"),
        (["rehearse", "--clock", "vitual"], "no such clock; did you mean 'virtual'? Known are virtual, real."),
        (["rehearse", "--fault", "wors"], "no such fault; did you mean 'worse'?"),
        (["merge", "--method", "tie"], "no such method; did you mean 'ties'?"),
        (["lake", "snapshots", "triplet"], "no such table; did you mean 'triplets'?"),
        (["profile", "gpus"], "no such profile; did you mean 'gpu'? Known are demo, gpu, local."),
        (["calibrate-judge", "missing.json"], "'missing.json' does not exist"),
        (["quarantine", "replay", "x", "--with", "missing.jsonl"], "'missing.jsonl' does not exist"),
        (["rehearse", "--values", "missing.yaml"], "'missing.yaml' does not exist"),
        (["report", "--out", "."], "is a directory"),
        (["drift", "--out", "FILE/folder"], "FILE/folder cannot be written: Not a directory"),
        (["report", "--out", "FILE/report.html"], "FILE cannot be written: File exists"),
        (["demo", "--lake", "FILE"], "is a file"),
        (["rehearse", "--out", "x"], "--out: rehearsals on the virtual clock leave no files"),
        (["rehearse", "--clock", "real", "--pool", "http://pool:8000"], "--pool and --candidate go together"),
        (["rehearse", "--candidate", ".", "--pool", "http://pool:8000"], "with --clock real"),
        (["plan"], "takes --in build-datasets=MANIFEST; given nothing"),
        (["merge", "--in", "train-adapter=a.json"], "a.json does not exist"),
        (["merge"], "takes --in train-adapter=MANIFEST two or more times"),
        (["train-adapter", "--in", "build_dataset=x"], "--in build_dataset=x: write STEP=MANIFEST; steps are collect-"),
        (["where-used", "f", "--lake", "nowhere"], "is --lake right?"),
        (["config", "show", "--config", "FILE"], "FILE is not YAML"),
        (["config", "explain", "gate.alfa"], "gate.alfa: no such key; did you mean 'gate.alpha'?"),
    ],
)
def test_a_users_mistake_is_one_message_and_exit_code_2(tmp_path: Path, args: list[str], words: str) -> None:
    (tmp_path / "FILE").write_text("a: [")
    done = subprocess.run(
        [sys.executable, "-m", "ratchet_pipelines.cli", *args],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "COLUMNS": "300", "TERMINAL_WIDTH": "300"},
    )
    assert done.returncode == 2, done.stderr
    assert words in " ".join(done.stderr.replace("│", " ").split())
    assert "Traceback" not in done.stderr


def test_a_path_without_permission_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    from ratchet_pipelines.console import guarded

    def program() -> None:
        raise PermissionError(13, "Permission denied", "/lake/x")

    with pytest.raises(SystemExit, match="2"):
        guarded(program)
    assert "/lake/x: Permission denied" in capsys.readouterr().err


def test_a_bug_keeps_its_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    from ratchet_pipelines.console import guarded

    with pytest.raises(SystemExit, match="1"):
        guarded(lambda: print(Path("/there/is/none").read_text()))
    assert "Traceback" in (told := capsys.readouterr().err)
    assert "FileNotFoundError" in told
