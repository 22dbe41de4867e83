import json
import subprocess
import sys
from pathlib import Path

from ratchet.collection.collect_triplets import STEP as COLLECT
from ratchet.config import Config
from ratchet.ingest.importers import import_files
from ratchet.ingest.landing import land
from ratchet.step import run_step
from ratchet.store import Store
from ratchet.validation.validate_triplets import STEP as VALIDATE
from support.event_factory import interaction, vote

LENIENT = Config.model_validate({"validate_triplets": {"max_bad_share": 1}})


def quarantine(lake: Store, *arguments: str) -> str:
    command = [sys.executable, "-m", "ratchet_pipelines.cli", "quarantine", *arguments, "--lake", lake.root]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def collect(lake: Store) -> dict[str, int]:
    flows = run_step(COLLECT, LENIENT, {}, lake).manifest.flows
    return {"in": flows["feedback"].rows_in, "out": flows["feedback"].rows_out, **flows["feedback"].drops}


def test_a_fixed_line_enters_the_lake_exactly_once(lake: Store, tmp_path: Path):
    land(lake, [interaction("a"), vote("good", "a")])
    broken = vote("late", "a").model_dump_json().replace('"value":1.0', '"value":[1]')
    lake.create("events/feedback/dt=x/broken.jsonl", f"{broken}\nno json at all\n".encode())
    assert collect(lake) == {"in": 3, "out": 1, "malformed": 2}
    [batch] = json.loads(quarantine(lake, "list", "--json"))
    assert (batch["holds"], batch["rows"]) == ("lines", 2)
    [first, second] = json.loads(quarantine(lake, "show", batch["batch"][:9], "--json"))
    assert (first["offset"], second["offset"], second["line"]) == (0, len(broken) + 1, "no json at all")
    assert "value" in first["why"]

    raw = tmp_path / "lines.jsonl"
    raw.write_text(quarantine(lake, "show", batch["batch"], "--raw"))
    assert json.loads(quarantine(lake, "replay", batch["batch"], "--json"))["drops"] == {"malformed": 2}
    raw.write_text(raw.read_text().replace('"value":[1]', '"value":1.0'))
    for _ in range(2):
        flow = json.loads(quarantine(lake, "replay", batch["batch"], "--with", str(raw), "--json"))
        assert flow == {"rows_in": 2, "rows_out": 1, "drops": {"malformed": 1}}
    assert collect(lake) == {"in": 1, "out": 1}
    flow = json.loads(quarantine(lake, "replay", batch["batch"], "--with", str(raw), "--json"))
    assert flow == {"rows_in": 2, "rows_out": 0, "drops": {"malformed": 1, "known": 1}}


def test_records_of_an_import_are_sent_back_to_their_importer(lake: Store, tmp_path: Path):
    file = tmp_path / "pairs.jsonl"
    file.write_text('{"prompt":"How?","chosen":"So.","rejected":"Not so."}\n{"prompt":"How?","chosen":"So."}\n')
    [batch] = import_files(lake, "preference", [file]).quarantined
    name = batch.split("/")[1]
    assert quarantine(lake, "show", name, "--raw") == '{"prompt":"How?","chosen":"So."}\n'
    command = [sys.executable, "-m", "ratchet_pipelines.cli", "quarantine", "replay", name, "--lake", lake.root]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "ratchet import preference FILE" in " ".join(done.stderr.split())


def test_triplets_in_quarantine_are_judged_by_todays_limits_and_return_once(lake: Store, tmp_path: Path):
    land(lake, [interaction("a", response="x" * 40_000), vote("f", "a"), vote("g", "a", "rating", 11)])
    collected = {"collect_triplets": run_step(COLLECT, LENIENT, {}, lake).manifest}
    strict = run_step(VALIDATE, LENIENT, collected, lake).manifest
    batch = strict.outputs["quarantine"].digest
    assert json.loads(quarantine(lake, "replay", batch, "--json"))["rows_out"] == 0
    file = tmp_path / "ratchet.yaml"
    file.write_text("validate_triplets: {max_response_chars: 50000, max_bad_share: 1}")
    flow = json.loads(quarantine(lake, "replay", batch, "--config", str(file), "--json"))
    assert flow == {"rows_in": 2, "rows_out": 1, "drops": {"rating_out_of_range": 1}}
    wide = Config.model_validate({"validate_triplets": {"max_response_chars": 50_000, "max_bad_share": 1}})
    assert run_step(VALIDATE, wide, collected, lake).manifest.outputs["valid"].rows == 1
