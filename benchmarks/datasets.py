"""Building datasets: triplets a second against the floor, near duplicates beside MinHash, detectors against the truth.

`python -m benchmarks datasets 1000000` prints all three at that size, with memory and CPU time.
"""

import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import polars as pl

from benchmarks.crowd import Crowd, crowd, score
from ratchet.config import BuildDatasets, Config
from ratchet.datasets.build_datasets import STEP, decide
from ratchet.datasets.eligibility import assess_eligibility
from ratchet.datasets.interning import intern
from ratchet.datasets.near_duplicates import components, near_duplicates
from ratchet.datasets.prompts import prompt_texts
from ratchet.manifest import Artifact, Manifest
from ratchet.step import run_step
from ratchet.store import Store, open_store

NUM_VOTES = 200_000
THRESHOLD = 0.8
SAMPLE_TEXTS = 20_000  # for what Python shingles; a rate is all that is wanted of it


def run(num_votes: int = NUM_VOTES) -> dict[str, float]:
    """Triplets a second, of which nearly every one has a prompt of its own: the whole step, and its files untouched."""
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(Path(folder))
        valid = _publish(store, crowd(num_votes, votes_per_answer=1.25).triplets)
        arms: dict[str, Callable[[], object]] = {
            "ratchet": lambda: run_step(STEP, Config(), {"validate_triplets": valid}, store),
            "floor: read, sort and write": lambda: _floor(store, valid),
        }
        return {name: (valid.outputs["valid"].rows or 0) / _seconds(arm) for name, arm in arms.items()}


def run_near_duplicates(num_votes: int = NUM_VOTES) -> dict[str, float]:
    """Prompts a second."""
    texts = prompt_texts(crowd(num_votes, votes_per_answer=1.25).triplets["messages"].unique(maintain_order=True))
    sample = texts[:SAMPLE_TEXTS]
    return {
        "ratchet, exact": len(texts) / _seconds(lambda: near_duplicates(texts, THRESHOLD)),
        "rensa": len(sample) / _seconds(lambda: rensa_pairs(sample)),
    }


def rensa_pairs(texts: pl.Series) -> set[tuple[int, int]]:
    """Candidates of MinHash, 128 permutations in 16 bands, over the same shingles."""
    from rensa import RMinHash, RMinHashLSH

    index = RMinHashLSH(threshold=THRESHOLD, num_perm=128, num_bands=16)
    pairs = set()
    for number, text in enumerate(texts):
        words = text.split()
        sketch = RMinHash(num_perm=128, seed=42)
        sketch.update([" ".join(words[at : at + 3]) for at in range(len(words) - 2)])
        pairs.update((other, number) for other in index.query(sketch))
        index.insert(number, sketch)
    return pairs


def detectors(made: Crowd) -> dict[str, tuple[float, float]]:
    """Precision and recall of every detector."""
    texts = intern(made.triplets)
    drops = decide(assess_eligibility(texts, BuildDatasets(), made.expired_through), texts, Config(), None)[0].drops
    found = drops.select(triplet_id=texts.triplet_ids.gather(drops["row"]), reason="reason")
    return score(found, made.planted)


def _publish(store: Store, triplets: pl.DataFrame) -> Manifest:
    """What `validate_triplets` would have left."""
    folder = store.local("validated/bench")
    folder.mkdir(parents=True)
    triplets.write_parquet(folder / "triplets.parquet")
    outputs = {"valid": Artifact(uri="validated/bench", digest="bench", rows=len(triplets))}
    return Manifest(
        step="validate_triplets", key="b", inputs={}, code_version="0", created_at=0, seconds=0, outputs=outputs
    )


def _floor(store: Store, valid: Manifest) -> None:
    """A table for each kind of row, with the same texts and ids as the step's, and no thought."""
    triplets = pl.read_parquet(store.local(valid.outputs["valid"].uri) / "triplets.parquet").sort("triplet_id")
    for kind in ("sft", "kto"):
        rows = triplets.select("messages", "response", pl.concat_list("triplet_id"), "conversation_id")
        rows.write_parquet(Path(store.root) / f"{kind}.parquet", compression="zstd", compression_level=1)


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main(arguments: list[str]) -> None:
    num_votes = int(arguments[0]) if arguments else NUM_VOTES
    for title, arms in {"triplets/s": run(num_votes), "prompts/s": run_near_duplicates(num_votes)}.items():
        print(title, {name: round(rate) for name, rate in arms.items()})
    usage = resource.getrusage(resource.RUSAGE_SELF)
    print(f"CPU {usage.ru_utime + usage.ru_stime:.1f} s, peak memory {usage.ru_maxrss / 2**20:.2f} GiB")
    print(f"{'planted':<20} precision  recall")
    for reason, (precision, recall) in detectors(crowd(num_votes)).items():
        print(f"{reason:<20} {precision:9.3f} {recall:7.3f}")
    texts = prompt_texts(crowd(SAMPLE_TEXTS, votes_per_answer=1.0).triplets["messages"].unique(maintain_order=True))
    near = near_duplicates(texts, THRESHOLD)
    labels = components(len(texts), near)
    found = sum(labels[one] == labels[other] for one, other in rensa_pairs(texts))
    print(f"near pairs in {len(texts)} prompts: {len(near)} exact, {found} of them among MinHash's candidates")
