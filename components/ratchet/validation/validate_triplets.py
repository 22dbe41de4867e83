"""Validate: good triplets go on, scrubbed of personal data; bad ones to quarantine with every reason that applies."""

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
from ratchet.validation.part_store import VERSION, forget
from ratchet.validation.suite import KEY, drops, load_suite, suite_digest, view

if TYPE_CHECKING:
    from ratchet.validation.merge_parts import MergedParts
    from ratchet.validation.part_store import Planned
    from ratchet.validation.slices import TripletSetRef

DATA_DOCS = "data_docs"


def run(config: Config, inputs: Inputs, store: Store) -> StepOutput:
    from ratchet.validation.gx import import_ahead
    from ratchet.validation.merge_parts import merge_parts, publish_quarantine

    import_ahead()
    settings = config.validate_triplets
    named = _named(inputs)
    parts = _parts(store, named, settings)
    gathered = merge_parts(store, named, parts)
    quarantine = publish_quarantine(store, gathered, suite=suite_digest(), batch=named.digest)
    _check_parity(store, parts, gathered, settings)
    evidence, frequent = _judge_evidence(store, gathered, settings)
    _refuse_too_bad(gathered.flow, settings.max_bad_share, f"{store.root}/{quarantine.uri}")
    valid = _publish_valid(store, gathered)
    return StepOutput(
        outputs={"valid": valid, "quarantine": quarantine, "daily_failures": evidence},
        flows={"triplets": gathered.flow},
        facts={
            **_facts(gathered),
            "too_frequent_on_some_day": frequent,
            "data_docs": f"{evidence.uri}/{DATA_DOCS}/index.html",
        },
    )


def share(config: Config, inputs: Inputs, store: Store, number: int, of: int) -> int:
    """Make every `of`-th part, from the `number`-th on, that is not there yet; how many they were."""
    from ratchet.validation.schedule_parts import make, plan

    return make(store, plan(store, _named(inputs), config.validate_triplets)[number - 1 :: of])


def _named(inputs: Inputs) -> "TripletSetRef":
    from ratchet.validation.slices import TripletSetRef

    collected = inputs["collect_triplets"].outputs["triplets"]
    return TripletSetRef(collected.digest, collected.rows or 0)


def _parts(store: Store, named: "TripletSetRef", settings: ValidateTriplets) -> "list[Planned]":
    """All parts, made now or found."""
    from ratchet.validation.schedule_parts import make, plan

    parts = plan(store, named, settings)
    make(store, parts)
    return parts


def _publish_valid(store: Store, gathered: "MergedParts") -> Artifact:
    """Name the parts' good rows; of parts without any, one says what the columns are."""
    digest = gathered.valid.digest()
    keys = [one.good for one in gathered.parts if one.rows_out] or [gathered.parts[0].good]
    return Artifact(uri=write_valid(store, digest, keys), digest=digest, rows=gathered.valid.num_rows)


def _check_parity(store: Store, parts: "list[Planned]", gathered: "MergedParts", settings: ValidateTriplets) -> None:
    """Great Expectations itself must say of the sampled rows what their masks say; else no part is found again."""
    from ratchet.validation.gx import Disagreement, check_parity
    from ratchet.validation.merge_parts import sample

    if not settings.parity_rows or not gathered.flow.rows_in:
        return
    rows = view(sample(store, gathered, settings.parity_rows).lazy()).collect()
    try:
        check_parity(rows, drops(), load_suite(), settings.limits, KEY)
    except Disagreement:
        forget(store, parts)
        raise


def _judge_evidence(store: Store, gathered: "MergedParts", settings: ValidateTriplets) -> tuple[Artifact, list[str]]:
    """Publish how many rows of each day break each expectation, with Data Docs; and which are too frequent on a day."""
    from ratchet.validation.gx import judge_evidence

    table = gathered.evidence()
    with tempfile.TemporaryDirectory() as aside:
        folder = Path(aside) / "daily_failures"
        frequent = judge_evidence(table, settings.max_bad_share, folder / DATA_DOCS)
        digest = digest_json(table.rows())  # not of the pages, which say when they were made
        table.write_parquet(folder / "daily_failures.parquet")
        store.put_tree(folder, f"daily_failures/{digest}")
    return Artifact(uri=f"daily_failures/{digest}", digest=digest, rows=table.height), frequent


def _facts(gathered: "MergedParts") -> dict[str, Any]:
    return {
        "expectations": [{"name": name, "failed": gathered.failed[name]} for name in drops()],
        "scrubbed": dict(sorted(gathered.scrubbed.items())),
        "injection_risk": gathered.at_risk,
    }


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
    share=share,
    version=VERSION,
    sources=lambda config, inputs, store: {"suite": suite_digest()},
    needs=Needs(cpu="4", memory="8Gi", ephemeral_storage="20Gi", timeout_s=2 * HOUR_S),
)
