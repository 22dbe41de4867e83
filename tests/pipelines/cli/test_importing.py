import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from ratchet.errors import UserError
from ratchet.ingest.importers import IMPORTERS
from ratchet_pipelines.cli.main import app

SAMPLES = Path(__file__).parents[2] / "ingest/importers/samples"


def ratchet(*args: object) -> Result:
    return CliRunner().invoke(app, [str(arg) for arg in args])


def test_the_list_names_every_format_and_what_it_reads():
    output = ratchet("import", "--list").stdout
    assert [line.split()[0] for line in output.splitlines() if not line.startswith(" ")] == sorted(IMPORTERS)
    assert json.loads(ratchet("import", "--list", "--json").stdout).keys() == IMPORTERS.keys()


def test_scores_and_traces_go_in_together(tmp_path: Path):
    done = ratchet(
        "import",
        "langfuse",
        SAMPLES / "langfuse.jsonl",
        "--traces",
        SAMPLES / "langfuse-traces.jsonl",
        "--score",
        "thumb=thumb",
        "--lake",
        tmp_path,
        "--json",
    )
    output = json.loads(done.stdout)
    assert output["flows"]["interactions"]["rows_out"] == 4
    assert output["flows"]["feedback"]["drops"]["scale_unknown"] == 5
    assert "unknown meaning: helpfulness (2)" in done.stderr
    assert all((tmp_path / key).is_file() for key in output["quarantined"])


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ([], "name a FORMAT; known are arena, kto"),
        (["kto"], "name a file"),
        (["kto", "there/is/none.jsonl"], "is not a file"),
        (["kto", "http://localhost:5000"], "only mlflow is read from a server"),
        (["kto", SAMPLES / "kto.jsonl", "--score", "x"], "--score x"),
        (["kto", SAMPLES / "kto.jsonl", "--traces", SAMPLES / "kto.jsonl"], "leave out --traces"),
    ],
)
def test_a_users_mistake_is_named(tmp_path: Path, args: list[object], words: str):
    error = ratchet("import", *args, "--lake", tmp_path).exception
    assert isinstance(error, UserError)
    assert words in str(error)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["pandlm", "x"], "no such format; did you mean 'pandalm'? Known are arena, kto"),
        (["kto", "x", "--consent", "grant"], "no such consent; did you mean 'granted'?"),
        (["kto", "x", "--source", "humans"], "no such source; did you mean 'human'? Known are human, model, code"),
    ],
)
def test_a_wrong_choice_names_the_nearest(args: list[str], words: str):
    done = ratchet("import", *args)
    assert done.exit_code == 2
    assert words in " ".join(done.stderr.replace("│", " ").split())
