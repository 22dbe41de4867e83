"""The files of a dataset whose train rows are repeated with slips in their prompts."""

import json
from itertools import product
from pathlib import Path

import polars as pl
import pytest

from ratchet.config import Config
from ratchet.datasets.augment import with_typos
from ratchet.datasets.build_datasets import STEP
from ratchet.lineage import where_used
from ratchet.manifest import Artifact, Manifest
from ratchet.step import run_step
from ratchet.store import Store
from support.leak_checker import is_near, near_prompts, prompts, said
from support.triplet_factory import frame, preference, thumb


def build(store: Store, triplets: pl.DataFrame, **settings: float) -> tuple[Manifest, Path]:
    folder = store.local("validated/v1")
    folder.mkdir(parents=True, exist_ok=True)
    triplets.write_parquet(folder / "triplets.parquet")
    valid = Artifact(uri="validated/v1", digest="v1", rows=len(triplets))
    validated = Manifest(
        step="validate_triplets",
        key="v1",
        inputs={},
        code_version="0",
        created_at=0,
        seconds=0,
        outputs={"valid": valid},
    )
    config = Config(build_datasets=settings)
    manifest = run_step(STEP, config, {"validate_triplets": validated}, store).manifest
    return manifest, store.local(manifest.outputs["dataset"].uri)


def files(folder: Path) -> dict[str, pl.DataFrame]:
    return {path.stem: pl.read_parquet(path) for path in folder.glob("???-*.parquet")}


@pytest.fixture(scope="module")
def votes() -> pl.DataFrame:
    """On a hundred prompts, ten a day."""
    asked = [{"prompt": f"question number {n}", "days": n / 10} for n in range(100)]
    likes = [thumb("ann", f"Good {n}.", **one) for n, one in enumerate(asked)]
    pairs = [preference("bob", f"Better {n}.", f"Bad {n}.", **one) for n, one in enumerate(asked)]
    return frame(*likes, *pairs)


def test_without_a_share_nothing_is_synthetic(lake, votes):
    found = files(build(lake, votes)[1])
    assert not any(table["synthetic"].any() for table in found.values())


def test_share_changes_the_train_files_alone_and_only_behind_their_rows(lake, votes):
    plain = build(lake, votes, recent_days=2)[1]
    manifest, folder = build(lake, votes, recent_days=2, augment_share=0.2)
    before, after = files(plain), files(folder)
    assert all(after[name].head(len(table)).equals(table) for name, table in before.items())
    extra = {name: len(after[name]) - len(table) for name, table in before.items()}
    assert {name for name, count in extra.items() if count} == {"sft-train", "dpo-train", "kto-train"}
    assert all(extra[name] == int(0.2 * len(before[name])) for name in extra if name.endswith("train"))
    assert (folder / "feedback_index.parquet").read_bytes() == (plain / "feedback_index.parquet").read_bytes()
    assert manifest.outputs["dataset"].rows == sum(map(len, after.values()))


def test_card_counts_what_the_files_hold(lake, votes):
    folder = build(lake, votes, augment_share=0.1)[1]
    told = json.loads((folder / "card.json").read_text())["files"]
    for name, table in files(folder).items():
        held = {"rows": len(table), "synthetic": table["synthetic"].sum(), "groups": table["group"].n_unique()}
        assert {fact: told[name][fact] for fact in held} == held
        assert told[name]["weight"] == pytest.approx(table["weight"].sum(), abs=1e-3)
        assert f"| {name} | {len(table):,} | {held['synthetic']:,} |" in (folder / "card.md").read_text()


def test_where_used_names_real_rows(lake, votes):
    manifest, folder = build(lake, votes, augment_share=0.2)
    found = files(folder)
    copied = found["kto-train"].filter("synthetic")["feedback_ids"][0][0]
    (use,) = where_used(lake, copied)
    assert use.dataset == manifest.outputs["dataset"].uri
    assert not any(found[place.file]["synthetic"][place.row] for place in use.places)
    assert all(copied in found[place.file]["feedback_ids"][place.row] for place in use.places)


def test_no_copy_is_near_a_held_out_prompt_where_slips_lead_from_prompt_to_prompt(lake):
    """Each prompt is one word of four letters that lie beside one another: a swap or another key gives another one."""
    words = ["".join(letters) for letters in product("wert", repeat=4)]
    likes = [thumb("ann", f"Yes, {word}.", prompt=word) for word in words]
    pairs = [preference("bob", f"Yes, {word}!", f"No, {word}.", prompt=word) for word in words]
    folder = build(lake, frame(*likes, *pairs), augment_share=0.2)[1]
    assert near_prompts(folder) == []
    found = files(folder)
    held_out = set(prompts(folder, "eval"))
    assert len(held_out) > 20
    real = found["kto-train"].filter(~pl.col("synthetic"))
    unguarded = with_typos(real, 0.2, 0, held_out=pl.Series([], dtype=pl.String), near=0.8).filter("synthetic")
    leaking = [one for one, other in product(map(said, unguarded["prompt"]), held_out) if is_near(one, other, 0.8)]
    assert leaking
    assert 0 < found["kto-train"]["synthetic"].sum() == len(unguarded) - len(leaking)


def test_real_prompts_with_slips_do_not_leak(lake, shared_data):
    """Where prompts are one at half their shingles, a slip may well join two."""
    found = json.loads((shared_data / "pandalm-testset-v1.json").read_text())
    triplets = frame(
        *(
            preference("ann", row["response1"], row["response2"], prompt=f"{row['instruction']}\n{row['input']}")
            for row in found
        )
    )
    folder = build(lake, triplets, near_duplicate=0.5, augment_share=0.2)[1]
    assert files(folder)["dpo-train"]["synthetic"].sum() > 50
    assert near_prompts(folder, 0.5) == []
