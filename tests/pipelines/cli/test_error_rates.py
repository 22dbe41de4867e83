"""`ratchet error-rates`, as a user runs it."""

import json
import subprocess
import sys

RATCHET = [sys.executable, "-m", "ratchet_pipelines.cli", "error-rates", "--pairs", "30", "--runs", "3"]


def test_it_counts_every_evaluation_and_names_the_promised_rates():
    output = subprocess.run([*RATCHET, "--json"], capture_output=True, text=True, check=True).stdout
    rows = json.loads(output)
    assert all(sum(rates["verdicts"].values()) == 3 for rates in rows)
    assert {rates["of"]: rates["at_most"] for rates in rows if rates["of"]}.keys() == {"pass", "fail"}


def test_it_prints_a_table_and_the_same_one_again():
    first, again = (subprocess.run(RATCHET, capture_output=True, text=True, check=True).stdout for _ in range(2))
    assert "3 evaluations of 30 pairs each" in first
    assert first == again
