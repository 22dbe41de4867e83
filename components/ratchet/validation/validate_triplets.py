"""Validate: good triplets go on, scrubbed of personal data; bad ones to quarantine with every reason that applies."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from ratchet.config import Config, ValidateTriplets
from ratchet.digest import digest_json, digest_tree
from ratchet.errors import UserError
from ratchet.lake.rows import TRIPLETS
from ratchet.manifest import Artifact, Flow, Made
from ratchet.parquet import write_parquet
from ratchet.step import Inputs, Step
from ratchet.store import Store
from ratchet.validation.suite import KEY, compile_rules, drops, load_suite, suite_digest, view

if TYPE_CHECKING:
    import polars as pl

    from ratchet.privacy.scrub import Tier
    from ratchet.validation.parts import Totals

DATA_DOCS = "data_docs"


def run(config: Config, inputs: Inputs, store: Store) -> Made:
    from ratchet.validation.gx import import_ahead

    import_ahead()
    settings = config.validate_triplets
    collected = inputs["collect_triplets"].outputs["triplets"]
    with tempfile.TemporaryDirectory() as aside:
        totals = _process(store, collected, settings, Path(aside))
        quarantine = _publish(store, "quarantine", Path(aside), totals.rows_in - totals.rows_out)
        flow = _flow(totals)
        _check_parity(totals, settings)
        evidence, frequent = _judge_evidence(store, totals, settings)
        _refuse_too_bad(flow, settings.max_bad_share, f"{store.root}/{quarantine.uri}")
        valid = _publish(store, "validated", Path(aside), totals.rows_out)
    return Made(
        outputs={"valid": valid, "quarantine": quarantine, "evidence": evidence},
        flows={"triplets": flow},
        facts={
            "expectations": [{"name": name, "failed": totals.failed[name]} for name in drops()],
            "too_frequent_on_some_day": frequent,
            "data_docs": f"{evidence.uri}/{DATA_DOCS}/index.html",
            "scrubbed": dict(sorted(totals.scrubbed.items())),
            "injection_risk": totals.at_risk,
        },
    )


def _process(store: Store, collected: Artifact, settings: ValidateTriplets, folder: Path) -> "Totals":
    """Judge and scrub all parts; good rows to `folder/validated`, bad ones to `folder/quarantine`, a file a part."""
    import polars as pl

    from ratchet.ahead import one_ahead
    from ratchet.lake.artifact import artifact_parts
    from ratchet.validation.parts import Totals, process

    num_rows = collected.rows or 0
    rules = compile_rules(pl.DataFrame(schema=TRIPLETS.schema), settings.limits)
    totals, tiers = Totals(), _tiers(settings)
    sample_share = settings.parity_rows / max(num_rows, 1)
    for number, rows in enumerate(one_ahead(artifact_parts(store, collected.digest, num_rows))):
        part = process(rows, rules, tiers, sample_share, suite=suite_digest(), batch=collected.digest)
        totals.add(part)
        _write(part.good, folder / "validated", number)
        _write(part.bad, folder / "quarantine", number)
    return totals


def _tiers(settings: ValidateTriplets) -> "list[Tier]":
    from ratchet.privacy.entities import entity_tier
    from ratchet.privacy.scrub import scrub

    return [scrub, entity_tier(settings.entity_model)] if settings.entity_model else [scrub]


def _write(rows: "pl.DataFrame", folder: Path, number: int) -> None:
    """Write a part; an empty one only if it is the first, which says what the columns are."""
    folder.mkdir(exist_ok=True)
    if rows.height or number == 0:
        file = folder / f"{number:05d}.parquet"
        write_parquet(rows, file)


def _publish(store: Store, kind: str, aside: Path, rows: int) -> Artifact:
    """Put the folder `aside/kind` in place as `kind/<digest of its files>`."""
    digest = digest_tree(aside / kind)
    store.put_tree(aside / kind, f"{kind}/{digest}")
    return Artifact(uri=f"{kind}/{digest}", digest=digest, rows=rows)


def _flow(totals: "Totals") -> Flow:
    counted = {name: totals.drops[name] for name in drops() if totals.drops[name]}
    return Flow(rows_in=totals.rows_in, rows_out=totals.rows_out, drops=counted)


def _check_parity(totals: "Totals", settings: ValidateTriplets) -> None:
    """Great Expectations itself must say of the sampled rows what their masks say."""
    import polars as pl

    from ratchet.validation.gx import check_parity

    if settings.parity_rows and totals.rows_in:
        sample = view(pl.concat(totals.samples).lazy()).collect()
        check_parity(sample, drops(), load_suite(), settings.limits, KEY)


def _judge_evidence(store: Store, totals: "Totals", settings: ValidateTriplets) -> tuple[Artifact, list[str]]:
    """Publish how many rows of each day break each expectation, with Data Docs; and which are too frequent on a day."""
    from ratchet.validation.evidence import evidence
    from ratchet.validation.gx import judge_evidence

    table = evidence(totals.evidence)
    with tempfile.TemporaryDirectory() as aside:
        folder = Path(aside) / "evidence"
        frequent = judge_evidence(table, settings.max_bad_share, folder / DATA_DOCS)
        digest = digest_json(table.rows())  # not of the pages, which say when they were made
        table.write_parquet(folder / "evidence.parquet")
        store.put_tree(folder, f"evidence/{digest}")
    return Artifact(uri=f"evidence/{digest}", digest=digest, rows=table.height), frequent


def _refuse_too_bad(flow: Flow, max_bad_share: float, place: str) -> None:
    num_bad = flow.rows_in - flow.rows_out
    if num_bad > max_bad_share * flow.rows_in:
        counts = ", ".join(f"{name} {number}" for name, number in flow.drops.items())
        raise UserError(
            f"{num_bad} of {flow.rows_in} triplets are bad ({counts}), more than validate_triplets.max_bad_share = "
            f"{max_bad_share} allows; `ratchet quarantine show {place.rsplit('/', 1)[-1][:12]}` has them. Mend the "
            f"producer or raise the share ({place})"
        )


STEP = Step(
    name="validate_triplets",
    run=run,
    inputs=("collect_triplets",),
    version=3,
    sources=lambda config, inputs, store: {"suite": suite_digest()},
)
