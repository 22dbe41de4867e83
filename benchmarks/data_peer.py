"""The peer of the data benchmark: the plain way to build such a pipeline from well-known parts.

pandas joins, Great Expectations validates every row, datasketch finds near-duplicates.
"""

import json
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd
from datasketch import MinHash, MinHashLSH

from benchmarks.data_cost import cost
from ratchet.validation.suite import SUITE

NEAR = 0.8
PERMUTATIONS = 128


def main(lake: Path) -> dict[str, Any]:
    stages: dict[str, dict[str, float]] = {}
    with cost(stages, "all"), tempfile.TemporaryDirectory(dir=lake.parent) as out:
        answers = pd.concat(map(pd.read_parquet, sorted((lake / "events/interaction").glob("*/*.parquet"))))
        votes = pd.concat(map(pd.read_parquet, sorted((lake / "events/feedback").glob("*/*.parquet"))))
        rows = len(answers) + len(votes)
        with cost(stages, "join"):
            triplets = _join(answers, votes)
        with cost(stages, "validate"):
            good = triplets[~triplets.index.isin(_failed(triplets))]
        with cost(stages, "near_duplicates"):
            unique = _dedup(good)
        with cost(stages, "write"):
            _write(unique, Path(out))
    whole = stages.pop("all")
    return {"rows": rows, **whole, "stages": stages}


def _join(answers: pd.DataFrame, votes: pd.DataFrame) -> pd.DataFrame:
    answers = answers.sort_values("served_at").drop_duplicates("interaction_id")
    votes = votes.sort_values("created_at").drop_duplicates("feedback_id")
    joined = votes.merge(answers, on="interaction_id", suffixes=("", "_asked"))
    rivals = answers[["interaction_id", "response"]].rename(
        columns={"interaction_id": "value_text", "response": "other_response"}
    )
    joined = joined.merge(rivals, on="value_text", how="left").rename(columns={"feedback_id": "triplet_id"})
    joined["source"] = "human"
    prompts = joined["messages"].map(json.loads)
    joined["prompt_chars"] = prompts.map(lambda chat: sum(len(turn["content"]) for turn in chat))
    joined["unknown_roles"] = 0
    return joined


def _failed(triplets: pd.DataFrame) -> set[int]:
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    import great_expectations as gx

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    asset = context.data_sources.add_pandas("lake").add_dataframe_asset("triplets")
    suite = json.loads(SUITE.read_text(encoding="utf-8"))
    verdict = (
        asset.add_batch_definition_whole_dataframe("all")
        .get_batch({"dataframe": triplets})
        .validate(
            gx.ExpectationSuite(**suite),
            result_format={"result_format": "COMPLETE"},
            expectation_parameters={"max_prompt_chars": 32_000, "max_response_chars": 32_000},
        )
    )
    return {place for result in verdict.results for place in result.result.get("unexpected_index_list") or ()}


def _dedup(triplets: pd.DataFrame) -> pd.DataFrame:
    index = MinHashLSH(threshold=NEAR, num_perm=PERMUTATIONS)
    kept = []
    for place, text in enumerate(triplets["messages"].str.cat(triplets["response"], sep=" ")):
        words = re.findall(r"\w+", text.lower())
        sketch = MinHash(num_perm=PERMUTATIONS)
        sketch.update_batch([" ".join(words[at : at + 3]).encode() for at in range(max(1, len(words) - 2))])
        if not index.query(sketch):
            index.insert(place, sketch)
            kept.append(place)
    return triplets.iloc[kept]


def _write(triplets: pd.DataFrame, out: Path) -> None:
    liked = triplets[(triplets["kind"] == "thumb") & (triplets["value_num"] > 0)]
    liked[["messages", "response"]].to_parquet(out / "sft.parquet")
    preferred = triplets[triplets["kind"] == "preference"]
    preferred[["messages", "response", "other_response"]].to_parquet(out / "dpo.parquet")
    judged = triplets[triplets["kind"].isin(["thumb", "rating"])]
    judged[["messages", "response", "value_num"]].to_parquet(out / "kto.parquet")


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))))
