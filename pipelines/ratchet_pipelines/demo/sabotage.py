"""Make the bad adapter's dataset of act two: the same votes, inverted."""

import tempfile
from pathlib import Path

from ratchet.config import Config
from ratchet.manifest import Artifact, Manifest, StepOutput
from ratchet.step import Inputs, Step, run_step
from ratchet.store import Store


def sabotaged_dataset(config: Config, dataset: Manifest, store: Store) -> Manifest:
    """Return a dataset whose training files prefer what users rejected. The held-out files stay as they are."""
    return run_step(STEP, config, {"build_datasets": dataset}, store).manifest


def run(config: Config, inputs: Inputs, store: Store) -> StepOutput:
    import polars as pl

    source = store.local(inputs["build_datasets"].outputs["dataset"].uri)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for path in sorted(source.glob("*.parquet")):
            (folder / path.name).write_bytes(path.read_bytes())
        pairs = pl.read_parquet(source / "dpo-train.parquet")
        swapped = pairs.with_columns(
            chosen="rejected", rejected="chosen", chosen_ends="rejected_ends", rejected_ends="chosen_ends"
        )
        swapped.write_parquet(folder / "dpo-train.parquet")
        disliked = pl.read_parquet(source / "sft-train.parquet").clear()
        disliked.write_parquet(folder / "sft-train.parquet")
        tree = store.publish_tree(folder, "datasets")
    artifact = Artifact(uri=tree.uri, digest=tree.digest, rows=len(swapped))
    return StepOutput(outputs={"dataset": artifact}, facts={"sizes": {"dpo-train": len(swapped)}})


STEP = Step(name="sabotage_dataset", run=run, inputs=("build_datasets",))
