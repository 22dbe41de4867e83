"""Step `validate_triplets`: scrub and pass on good triplets, quarantine bad ones with all their reasons."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ratchet.config import Config, ValidateTriplets
from ratchet.digest import digest_json
from ratchet.errors import UserError
from ratchet.lake.valid_triplets import write_valid
from ratchet.manifest import Artifact, Flow, StepOutput
from ratchet.needs import HOUR_S, Needs
from ratchet.step import Inputs, Step
from ratchet.store import Store
from ratchet.validation.part_store import VERSION, delete_records
from ratchet.validation.suite import KEY, drops, load_suite, suite_digest, view

if TYPE_CHECKING:
    from ratchet.validation.merge_parts import MergedParts
    from ratchet.validation.part_store import PlannedPart
    from ratchet.validation.slices import TripletSetRef

DATA_DOCS = "data_docs"


def run(config: Config, inputs: Inputs, store: Store) -> StepOutput:
    from ratchet.validation.great_expectations import import_ahead
    from ratchet.validation.merge_parts import merge_parts, publish_quarantine

    import_ahead()
    settings = config.validate_triplets
    named = _named(inputs)
    parts = _parts(store, named, settings)
    merged = merge_parts(store, named, parts)
    quarantine = publish_quarantine(store, merged, suite=suite_digest(), batch=named.digest)
    _check_parity(store, parts, merged, settings)
    daily_failures, frequent = _publish_daily_failures(store, merged, settings)
    _refuse_too_bad(merged.flow, settings.max_bad_share, f"{store.root}/{quarantine.uri}")
    digest = merged.valid.digest()
    # Without any good row, one part's empty file gives the columns.
    keys = [part.good for part in merged.parts if part.rows_out] or [merged.parts[0].good]
    valid = Artifact(uri=write_valid(store, digest, keys), digest=digest, rows=merged.valid.num_rows)
    return StepOutput(
        outputs={"valid": valid, "quarantine": quarantine, "daily_failures": daily_failures},
        flows={"triplets": merged.flow},
        facts={
            **_facts(merged),
            "too_frequent_on_some_day": frequent,
            "data_docs": f"{daily_failures.uri}/{DATA_DOCS}/index.html",
        },
    )


def share(config: Config, inputs: Inputs, store: Store, number: int, of: int) -> int:
    """Make the missing ones of every `of`-th part from the `number`-th (from 1); return how many."""
    from ratchet.validation.schedule_parts import make, plan

    return make(store, plan(store, _named(inputs), config.validate_triplets)[number - 1 :: of])


def _named(inputs: Inputs) -> "TripletSetRef":
    from ratchet.validation.slices import TripletSetRef

    collected = inputs["collect_triplets"].outputs["triplets"]
    return TripletSetRef(collected.digest, collected.rows or 0)


def _parts(store: Store, named: "TripletSetRef", settings: ValidateTriplets) -> "list[PlannedPart]":
    """Return all parts, after making the missing ones."""
    from ratchet.validation.schedule_parts import make, plan

    parts = plan(store, named, settings)
    make(store, parts)
    return parts


def _check_parity(store: Store, parts: "list[PlannedPart]", merged: "MergedParts", settings: ValidateTriplets) -> None:
    """Raise Disagreement, and let all parts be made again, if Great Expectations contradicts the sample's masks."""
    from ratchet.validation.great_expectations import Disagreement, check_parity
    from ratchet.validation.merge_parts import sample

    if not settings.parity_rows or not merged.flow.rows_in:
        return
    rows = view(sample(store, merged, settings.parity_rows).lazy()).collect()
    try:
        check_parity(rows, drops(), load_suite(), settings.limits, KEY)
    except Disagreement:
        delete_records(store, parts)
        raise


def _publish_daily_failures(
    store: Store, merged: "MergedParts", settings: ValidateTriplets
) -> tuple[Artifact, list[str]]:
    """Publish the daily failures with Data Docs; also return the reasons that are too frequent on some day."""
    from ratchet.validation.great_expectations import check_daily_failures

    table = merged.daily_failures()
    with tempfile.TemporaryDirectory() as aside:
        folder = Path(aside) / "daily_failures"
        frequent = check_daily_failures(table, settings.max_bad_share, folder / DATA_DOCS)
        digest = digest_json(table.rows())  # not of the Data Docs, which hold the time
        table.write_parquet(folder / "daily_failures.parquet")
        store.put_tree(folder, f"daily_failures/{digest}")
    return Artifact(uri=f"daily_failures/{digest}", digest=digest, rows=table.height), frequent


def _facts(merged: "MergedParts") -> dict[str, Any]:
    return {
        "expectations": [{"name": name, "failed": merged.failed[name]} for name in drops()],
        "scrubbed": dict(sorted(merged.scrubbed.items())),
        "injection_risk": merged.at_risk,
    }


def _refuse_too_bad(flow: Flow, max_bad_share: float, place: str) -> None:
    num_bad = flow.rows_in - flow.rows_out
    if num_bad > max_bad_share * flow.rows_in:
        counts = ", ".join(f"{name} {number}" for name, number in flow.drops.items())
        raise UserError(
            f"{num_bad} of {flow.rows_in} triplets are bad ({counts}), more than validate_triplets.max_bad_share = "
            f"{max_bad_share} allows; `ratchet quarantine show {place.rsplit('/', 1)[-1][:12]}` has them. Fix the "
            f"producer or raise the share ({place})"
        )


STEP = Step(
    name="validate_triplets",
    run=run,
    inputs=("collect_triplets",),
    share=share,
    version=VERSION,
    sources=lambda config, inputs, store: {"suite": suite_digest()},
    needs=Needs(cpu="4", memory="8Gi", ephemeral_storage="20Gi", timeout_s=2 * HOUR_S),
)
