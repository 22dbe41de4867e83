"""Traces and assessments of a real MLflow, live and from an export."""

import subprocess
import sys
from pathlib import Path

import pytest

from ratchet.errors import UserError
from ratchet.ingest.importers import IMPORTERS, Terms, import_files, import_sources
from ratchet.ingest.importers.mlflow import live
from ratchet.ingest.importers.scores import parse_rules
from ratchet.registry import mlflow_store
from ratchet.store import Store, open_store

pytestmark = pytest.mark.slow  # making MLflow's database takes half a minute; its export is among the golden files
EXPERIMENT = "support bot"
TERMS = Terms(scores=parse_rules(["thumb=thumb", "relevance=0..1"]))
# Two traces: one judged by a person and, on its inner span, by a model; one not at all. In a process of its own, as
# applications are: among warnings that are errors MLflow gives up tracing without a word.
APPLICATION = """
import sys
from ratchet.config import Config, Registry
from ratchet.registry import mlflow_store
from ratchet.store import open_store
mlflow_store.connect(Config(registry=Registry(experiment=sys.argv[2])), open_store(sys.argv[1]))
import mlflow
from mlflow.entities import AssessmentSource
mlflow.set_experiment(sys.argv[2])
inner = []

@mlflow.trace(span_type="LLM")
def chat(messages):
    inner.append(mlflow.get_current_active_span().span_id)
    return {"choices": [{"message": {"role": "assistant", "content": "Lima."}}]}

@mlflow.trace
def ask(question):
    return chat([{"role": "user", "content": question}])["choices"][0]["message"]["content"]

ask("Capital of Peru?")
judged = mlflow.get_last_active_trace_id()
ask("Peru's capital?")
mlflow.flush_trace_async_logging()
person = AssessmentSource(source_type="HUMAN", source_id="ann@example.com")
model = AssessmentSource(source_type="LLM_JUDGE", source_id="judge-1")
mlflow.log_feedback(trace_id=judged, name="thumb", value=True, source=person, rationale="Right.")
mlflow.log_feedback(trace_id=judged, name="relevance", value=0.5, source=model, span_id=inner[0])
mlflow.log_expectation(trace_id=judged, name="expected_response", value="It is Lima.", source=person)
with open(sys.argv[1] + "/traces.jsonl", "w") as lines:
    for trace in mlflow.search_traces(return_type="list", order_by=["timestamp_ms ASC"]):
        lines.write(trace.to_json() + "\\n")
table = mlflow.search_traces(return_type="pandas", order_by=["timestamp_ms ASC"])
table[["trace_id", "trace"]].to_json(sys.argv[1] + "/table.jsonl", orient="records", lines=True)
"""


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a real MLflow's database and of its two kinds of export."""
    folder = tmp_path_factory.mktemp("mlflow")
    command = [sys.executable, "-c", APPLICATION, str(folder), EXPERIMENT]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def uri(traced: Path) -> str:
    return f"sqlite:///{traced / mlflow_store.DATABASE}"


def landed(store: Store) -> list[tuple[str, bytes]]:
    return [(key, store.read(key)) for key in store.list("events")]


def test_a_server_gives_its_answers_and_what_was_said_of_them(lake: Store, traced: Path):
    done = import_sources(lake, IMPORTERS["mlflow"], [live(uri(traced), EXPERIMENT)], TERMS)
    assert (done.flows["interactions"].rows_out, done.flows["feedback"].rows_out) == (3, 3)
    assert not done.quarantined
    told = b"".join(data for _, data in landed(lake)).decode()
    for words in ('"Capital of Peru?"', '"Peru\'s capital?"', '"It is Lima."', '"Right."'):
        assert words in told
    assert "ann@example.com" not in told


@pytest.mark.parametrize("export", ["traces.jsonl", "table.jsonl"])
def test_an_export_lands_what_the_server_does(lake: Store, tmp_path: Path, traced: Path, export: str):
    other = open_store(tmp_path / "other")
    done = import_sources(lake, IMPORTERS["mlflow"], [live(uri(traced), EXPERIMENT)], TERMS)
    assert import_files(other, "mlflow", [traced / export], terms=TERMS) == done
    assert landed(lake) == landed(other)


def test_a_server_that_is_read_twice_lands_once(lake: Store, traced: Path):
    for _ in range(2):
        import_sources(lake, IMPORTERS["mlflow"], [live(uri(traced), EXPERIMENT)], TERMS)
    assert len(landed(lake)) == 2


def test_an_unknown_experiment_is_named(lake: Store, traced: Path):
    with pytest.raises(UserError, match="no experiment 'nowhere'"):
        import_sources(lake, IMPORTERS["mlflow"], [live(uri(traced), "nowhere")], TERMS)
