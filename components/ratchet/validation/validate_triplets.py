"""Validate: good triplets go on, bad ones to quarantine with every reason that applies."""

import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from ratchet.config import Config
from ratchet.errors import UserError
from ratchet.lake.content import content_digest
from ratchet.lake.tables import read_artifact
from ratchet.manifest import Artifact, Flow, Made
from ratchet.step import Inputs, Step
from ratchet.store import Store
from ratchet.validation.suite import REASONS, drops, judge, suite_digest

if TYPE_CHECKING:
    import polars as pl

FILE = "triplets.parquet"


def run(config: Config, inputs: Inputs, store: Store) -> Made:
    import polars as pl

    settings = config.validate_triplets
    collected = inputs["collect_triplets"].outputs["triplets"]
    triplets = read_artifact(store, collected.digest, collected.rows or 0)
    limits = settings.model_dump(include={"max_prompt_chars", "max_response_chars"})
    judged = judge(triplets, limits)
    is_good = pl.col(REASONS).list.len() == 0
    good, bad = judged.filter(is_good).drop(REASONS), judged.filter(~is_good)
    quarantine = _publish(store, "quarantine", bad)
    counts = Counter(reasons[0] for reasons in bad[REASONS])
    flow = Flow(
        rows_in=triplets.height, rows_out=good.height, drops={name: counts[name] for name in drops() if counts[name]}
    )
    _refuse_too_bad(flow, settings.max_bad_share, f"{store.root}/{quarantine.uri}")
    valid = _publish(store, "validated", good)
    failed = Counter(reason for reasons in bad[REASONS] for reason in reasons)
    return Made(
        outputs={"valid": valid, "quarantine": quarantine},
        flows={"triplets": flow},
        facts={"expectations": [{"name": name, "failed": failed[name]} for name in drops()]},
    )


def _refuse_too_bad(flow: Flow, max_bad_share: float, place: str) -> None:
    num_bad = flow.rows_in - flow.rows_out
    if num_bad > max_bad_share * flow.rows_in:
        counts = ", ".join(f"{name} {number}" for name, number in flow.drops.items())
        raise UserError(
            f"{num_bad} of {flow.rows_in} triplets are bad ({counts}), more than validate_triplets.max_bad_share = "
            f"{max_bad_share} allows; look at {place}, then mend the producer or raise the share"
        )


def _publish(store: Store, kind: str, rows: "pl.DataFrame") -> Artifact:
    """Write rows as `kind/<digest of their content>/triplets.parquet`."""
    digest = content_digest(rows)
    with tempfile.TemporaryDirectory() as folder:
        rows.write_parquet(Path(folder) / FILE)
        store.put_tree(Path(folder), f"{kind}/{digest}")
    return Artifact(uri=f"{kind}/{digest}", digest=digest, rows=rows.height)


STEP = Step(
    name="validate_triplets",
    run=run,
    inputs=("collect_triplets",),
    sources=lambda config, inputs, store: {"suite": suite_digest()},
)
