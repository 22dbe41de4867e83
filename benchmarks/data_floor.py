"""The floor of the data benchmark: DuckDB reads the landed files, joins votes to answers, and writes the result.

Every answer is read and written, with its votes where it has any: what has to be decoded and encoded, and nothing else.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import duckdb

from benchmarks.data_cost import cost

JOIN = """
COPY (
    SELECT a.*, v.feedback_id, v.subject_id AS judge, v.kind, v.value_num, v.value_text, v.created_at
    FROM read_parquet('{lake}/events/interaction/*/*.parquet') a
    LEFT JOIN read_parquet('{lake}/events/feedback/*/*.parquet') v USING (interaction_id)
) TO '{out}' (FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 1)
"""


def main(lake: Path) -> dict[str, Any]:
    stages: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(dir=lake.parent) as folder, duckdb.connect() as base, cost(stages, "all"):
        base.execute("SET preserve_insertion_order = false; SET enable_progress_bar = false; SET memory_limit = '3GB'")
        base.execute(f"SET temp_directory = '{folder}'")
        base.execute(JOIN.format(lake=lake, out=Path(folder) / "joined.parquet"))
        rows = [
            base.execute(f"SELECT count(*) FROM read_parquet('{lake}/events/{kind}/*/*.parquet')").fetchall()[0][0]
            for kind in ("interaction", "feedback")
        ]
    return {"rows": sum(rows), **stages["all"]}


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))))
