"""Collect: join what has landed since the last collection into triplets, each event exactly once.

A run first finishes collections that were planned but not done (their collector was killed), then makes its own. The
flows count the collections that this run worked on; feedback carried over from earlier ones, still waiting for its
interaction, counts as in again.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from ratchet.collection.intents import Intent, landing_digest, plan
from ratchet.collection.records import Collected, is_done, total
from ratchet.config import Config
from ratchet.lake.schema import TRIPLETS
from ratchet.manifest import Artifact, StepOutput
from ratchet.needs import HOUR_S, Needs
from ratchet.step import Inputs, Step
from ratchet.store import Store

if TYPE_CHECKING:
    from ratchet.lake.fingerprint import Fingerprint


def run(config: Config, inputs: Inputs, store: Store) -> StepOutput:
    intents = plan(store, config.collect_triplets.late_days)
    # With none to do, the last one is counted again: its manifest may be all that a killed run still owed.
    undone = [intent for intent in intents if not is_done(store, intent.number)] or intents[-1:]
    collected = [_collect(store, intent) for intent in undone]
    content = _content(store, intents)
    return StepOutput(
        outputs={"triplets": Artifact(uri=TRIPLETS.key, digest=content.digest(), rows=content.num_rows)},
        flows={
            "interactions": total(one.interactions for one in collected),
            "feedback": total(one.feedback for one in collected),
        },
        facts={
            "collections": [intent.number for intent in undone],
            "files": sum(len(intent.files) for intent in undone),
            "refused": [one.refused for one in collected if one.refused],
        },
    )


def _collect(store: Store, intent: Intent) -> Collected:
    from ratchet.collection.collect import collect

    return Collected.read(store, intent.number) if is_done(store, intent.number) else collect(store, intent)


def _content(store: Store, intents: Iterable[Intent]) -> "Fingerprint":
    from ratchet.lake.fingerprint import Fingerprint

    records = [Collected.read(store, intent.number) for intent in intents]
    return sum((one.content for one in records), Fingerprint())


STEP = Step(
    name="collect_triplets",
    run=run,
    version=3,
    sources=lambda config, inputs, store: {"landing": landing_digest(store)},
    needs=Needs(cpu="4", memory="8Gi", ephemeral_storage="20Gi", timeout_s=2 * HOUR_S),
)
